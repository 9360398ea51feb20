/* cli: the verbs that are not mount: each finds the daemon of a path, asks it, and prints the answer for
 * people or as JSON.
 *
 * Not for the work itself: that is done by the daemon, behind control. One thread. Exit status: 0, 1
 * failed, 2 the command line is wrong, 3 done but for something that was left out (commit) or stays staged
 * (umount). */
#define LOG_MODULE "cli"

#include "cli_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#define PROGRESS_MS 500

int cli_complain(const char *fmt, ...)
{
	va_list ap;

	fputs("hugfs: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	return CLI_FAILED;
}

int cli_usage(const char *verb)
{
	for (const struct cli_verb *v = cli_verbs; v->name; v++) {
		if (strcmp(v->name, verb) == 0)
			fprintf(stderr, "usage: hugfs %s %s\n", v->name, v->usage);
	}
	return CLI_WRONG;
}

const char *cli_or_empty(const char *text)
{
	return text ? text : "";
}

int cli_json_and_path(int argc, char **argv, bool *ret_json, const char **ret_path)
{
	const char *path = NULL;
	bool json = false;

	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--json") == 0)
			json = true;
		else if (argv[i][0] == '-' || path)
			return cli_usage(argv[0]);
		else
			path = argv[i];
	}
	*ret_json = json;
	*ret_path = path;
	return CLI_OK;
}

int cli_print_json(struct hub_json_writer *w)
{
	int r = hub_json_write_done(w);

	if (r < 0)
		return cli_complain("%s", strerror(-r));
	puts(w->out->data);
	return CLI_OK;
}

/* A name as it is, but nothing in it moves a terminal's cursor. */
void cli_print_name(FILE *to, const char *name)
{
	for (; *name; name++)
		fputc((unsigned char)*name < 0x20 || *name == 0x7f ? '?' : *name, to);
}

/* "1.5 MiB" */
const char *cli_size_text(uint64_t bytes, char out[24])
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	double n = (double)bytes;
	size_t i = 0;

	for (; n >= 1024 && i + 1 < ARRAY_LEN(units); i++)
		n /= 1024;
	snprintf(out, 24, i ? "%.1f %s" : "%.0f %s", n, units[i]);
	return out;
}

/* "1 file", "2 files" */
const char *cli_count_text(uint64_t n, const char *what, char out[40])
{
	snprintf(out, 40, "%" PRIu64 " %.12s%s", n, what, n == 1 ? "" : "s");
	return out;
}

/* -- asking -- */

/* Which mount `path` lies in; CLI_FAILED with a complaint. */
int cli_find(const char *path, struct control_mount *ret)
{
	int r = control_find(path, ret);

	if (r == -ENOENT)
		return cli_complain("%s lies in no hugfs mount", path);
	if (r < 0)
		return cli_complain("%s: %s", path, strerror(-r));
	return CLI_OK;
}

static void show_progress(const char *socket, const struct control_request *asked)
{
	const struct control_request req = {.verb = CONTROL_STATUS, .path = asked->path};
	struct control_answer ans = {0};
	char sent[24], all[24];
	uint64_t done = 0, of = 0;

	if (control_ask(socket, &req, &ans, NULL) < 0)
		return;
	for (size_t i = 0; i < ans.n_revs; i++) {
		done += ans.revs[i].sent;
		of += ans.revs[i].to_send;
	}
	control_answer_fini(&ans);
	if (of > 0)
		fprintf(stderr, "\r\033[Kpublishing: %s of %s", cli_size_text(done, sent), cli_size_text(of, all));
}

/* Like control_ask, with the progress of what it waits for on a terminal. */
static int ask_and_show(const char *socket, const struct control_request *req, struct control_answer *ret,
                        int *ret_fd)
{
	struct pollfd p = {.events = POLLIN};
	int r;

	if (!isatty(STDERR_FILENO))
		return control_ask(socket, req, ret, ret_fd);
	r = control_send(socket, req, &p.fd);
	if (r < 0)
		return r;
	while (poll(&p, 1, PROGRESS_MS) == 0)
		show_progress(socket, req);
	fputs("\r\033[K", stderr);
	r = control_receive(p.fd, ret);
	if (r == 0 && ret_fd)
		*ret_fd = p.fd;
	else
		close(p.fd);
	return r;
}

/* Asks the daemon of that mount; of several, which happens when one still publishes for a mount that is
 * gone, the one that is mounted. -ECONNREFUSED: it has none. */
int cli_ask_mount(const struct control_mount *m, const struct control_request *req,
                     struct control_answer *ret, int *ret_fd)
{
	char **sockets CLEANUP(control_sockets_freep) = NULL;
	int r = control_sockets(m->uid, m->mountpoint, &sockets);

	if (r < 0)
		return r;
	r = -ECONNREFUSED;
	for (char **s = sockets; *s; s++) {
		struct control_request probe = {.verb = CONTROL_STATUS, .path = req->path};
		struct control_answer ans = {0};
		bool here = control_ask(*s, &probe, &ans, NULL) == 0 && !ans.unmounted;

		control_answer_fini(&ans);
		if (!here)
			continue;
		r = ask_and_show(*s, req, ret, ret_fd);
		break;
	}
	return r;
}

/* The same with complaints. */
int cli_ask(const struct control_mount *m, const struct control_request *req, struct control_answer *ret)
{
	int r = cli_ask_mount(m, req, ret, NULL);

	if (r == -ECONNREFUSED)
		return cli_complain("the daemon of %s does not answer: if it is gone, free the mount with: "
		                "fusermount3 -u %s", m->mountpoint, m->mountpoint);
	if (r < 0)
		return cli_complain("the daemon of %s broke off: %s", m->mountpoint, strerror(-r));
	if (ret->error) {
		r = cli_complain("%s", cli_or_empty(ret->error_text));
		control_answer_fini(ret);
		return r;
	}
	return CLI_OK;
}

/* The daemon's sentence, or what the errno says. */
const char *cli_why(const char *text, int64_t error)
{
	return *cli_or_empty(text) ? text : strerror((int)error);
}

const struct cli_verb cli_verbs[] = {
	{"status", "[--json] [PATH]", "what is mounted, staged, open, under way and published last",
	 cli_status},
	{"commit", "[-m TITLE [-m TEXT]...] [--pr] [--interrupted] [--on-conflict=WAY] PATH",
	 "publishes what is staged there now and prints the commit's URL; exit 3: open files were left out",
	 cli_commit},
	{"run", "[-m TITLE [-m TEXT]...] [--pr] [--discard] PATH -- COMMAND [WORD]...",
	 "runs COMMAND; all changes of the branch meanwhile become one commit, or stay here when it fails", cli_run},
	{"discard", "[-y] PATH", "throws what is staged at PATH and below it away", cli_discard},
	{"diff", "[--json] [PATH]", "what the next commit would hold", cli_diff},
	{"log", "[--json] [-n COUNT] PATH", "the last commits of a revision, or those of them that changed a file", cli_log},
	{"tag", "[-m TEXT] NAME PATH", "tags the head of the revision", cli_tag},
	{"fetch", "PATH [PATH]...", "reads files and folders, so that the cache has them", cli_fetch},
	{"refresh", "[PATH]", "looks now whether branches moved", cli_refresh},
	{"cache", "[--json] [ls|verify|clear|prune [SIZE]]",
	 "what is cached; checks every block; throws away what nobody uses, all or down to SIZE", cli_cache},
	{"doctor", "", "checks what a mount needs: one line each, with the cure", cli_doctor},
	{"umount", "MOUNTPOINT",
	 "publishes what is settled, then unmounts; exit 3: something stays staged; exit 1: files are open",
	 cli_umount},
	{NULL, NULL, NULL, NULL},
};
