/* cli_umount: the verb umount. One thread. */
#define LOG_MODULE "cli"

#include "cli_internal.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#define END_MS 20000       /* from the unmount to the end of the daemon, which has published before */


static int complain_busy(const char *mountpoint)
{
	AUTO_BUF holders = {.max = (size_t)64 << 10};

	if (control_holders(mountpoint, &holders) < 0 || holders.len == 0)
		return cli_complain("%s is busy and stays mounted: somebody has files open in it, or something "
		                "is mounted in it", mountpoint);
	cli_complain("%s is busy and stays mounted: these processes have files open in it:", mountpoint);
	for (size_t i = 0; i < holders.len; i++) {
		if (i == 0 || holders.data[i - 1] == '\n')
			fputs("  ", stderr);
		fputc(holders.data[i], stderr);
	}
	return CLI_FAILED;
}

/* The daemon is gone: only the kernel has to be told. */
static int umount_dead(const char *mountpoint)
{
	int r = control_detach(mountpoint, false);

	if (r == -EBUSY)
		return complain_busy(mountpoint);
	if (r < 0)
		return cli_complain("%s: %s", mountpoint, strerror(-r));
	cli_complain("the daemon of %s was gone; what was staged is kept for the next mount", mountpoint);
	return CLI_OK;
}

static int print_unpublished(const struct control_answer *ans)
{
	int r = CLI_OK;

	for (size_t i = 0; i < ans->n_revs; i++) {
		const struct control_rev *rev = &ans->revs[i];
		char size[24], files[40], deletions[40];

		if (*cli_or_empty(rev->commit))
			puts(*cli_or_empty(rev->url) ? rev->url : rev->commit);
		if (!rev->n_changes)
			continue;
		if (rev->error)
			cli_print_failure(rev);
		cli_complain("%s@%s: staged for the next mount: %s (%s), %s", rev->repo, rev->revision,
		         cli_count_text(rev->files, "file", files), cli_size_text(rev->bytes, size),
		         cli_count_text(rev->deletions, "deletion", deletions));
		cli_list_changes(rev, NULL, NULL);
		r = CLI_PARTLY;
	}
	return r;
}

/* The daemon keeps the connection until its process has ended. */
static void wait_for_end(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	if (poll(&p, 1, END_MS) == 0)
		cli_complain("the daemon still runs: it ends by itself");
	close(fd);
}

static int umount_at(const struct control_mount *m)
{
	char root[] = "";
	const struct control_request req = {.verb = CONTROL_UMOUNT, .path = root};
	struct control_answer ans = {0};
	int fd = -1;
	int r;

	if (chdir("/") < 0) /* we must not be the one who keeps it busy */
		return cli_complain("/: %s", strerror(errno));
	r = cli_ask_mount(m, &req, &ans, &fd);
	if (r == -ECONNREFUSED)
		return umount_dead(m->mountpoint);
	if (r < 0)
		return cli_complain("the daemon of %s broke off: %s", m->mountpoint, strerror(-r));
	if (ans.error == EBUSY)
		r = complain_busy(m->mountpoint);
	else if (ans.error)
		r = cli_complain("%s stays mounted: %s", m->mountpoint, cli_or_empty(ans.error_text));
	else
		r = print_unpublished(&ans);
	if (ans.error)
		close(fd);
	else
		wait_for_end(fd);
	control_answer_fini(&ans);
	return r;
}

int cli_umount(int argc, char **argv)
{
	struct control_mount m = {0};
	int r;

	if (argc != 2 || argv[1][0] == '-')
		return cli_usage(argv[0]);
	r = cli_find(argv[1], &m);
	if (r == CLI_OK)
		r = umount_at(&m);
	control_mount_fini(&m);
	return r;
}
