/* cli: the verbs that are not mount: each finds the daemon of a path, asks it, and prints the answer for
 * people or as JSON.
 *
 * Not for the work itself: that is done by the daemon, behind control. One thread. Exit status: 0, 1
 * failed, 2 the command line is wrong, 3 done but for something that was left out (commit) or stays staged
 * (umount). */
#define LOG_MODULE "cli"

#include "cli.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "control.h"
#include "hub_json.h"

#define PROGRESS_MS 500
#define END_MS 20000       /* from the unmount to the end of the daemon, which has published before */
#define CHANGES_SHOWN 100  /* --json shows all that the daemon tells */
#define DESCRIPTION_MAX ((size_t)64 << 10)

enum { OK, FAILED, WRONG, PARTLY };

static int complain(const char *fmt, ...) PRINTF(1, 2);
static int complain(const char *fmt, ...)
{
	va_list ap;

	fputs("hugfs: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	return FAILED;
}

static int usage(const char *verb)
{
	for (const struct cli_verb *v = cli_verbs; v->name; v++) {
		if (strcmp(v->name, verb) == 0)
			fprintf(stderr, "usage: hugfs %s %s\n", v->name, v->usage);
	}
	return WRONG;
}

static const char *or_empty(const char *text)
{
	return text ? text : "";
}

/* A name as it is, but nothing in it moves a terminal's cursor. */
static void print_name(FILE *to, const char *name)
{
	for (; *name; name++)
		fputc((unsigned char)*name < 0x20 || *name == 0x7f ? '?' : *name, to);
}

/* "1.5 MiB" */
static const char *size_text(uint64_t bytes, char out[24])
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
static const char *count_text(uint64_t n, const char *what, char out[40])
{
	snprintf(out, 40, "%" PRIu64 " %.12s%s", n, what, n == 1 ? "" : "s");
	return out;
}

/* -- asking -- */

/* Which mount `path` lies in; FAILED with a complaint. */
static int find(const char *path, struct control_mount *ret)
{
	int r = control_find(path, ret);

	if (r == -ENOENT)
		return complain("%s lies in no hugfs mount", path);
	if (r < 0)
		return complain("%s: %s", path, strerror(-r));
	return OK;
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
		fprintf(stderr, "\r\033[Kpublishing: %s of %s", size_text(done, sent), size_text(of, all));
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
static int ask_mount(const struct control_mount *m, const struct control_request *req,
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
static int ask(const struct control_mount *m, const struct control_request *req, struct control_answer *ret)
{
	int r = ask_mount(m, req, ret, NULL);

	if (r == -ECONNREFUSED)
		return complain("the daemon of %s does not answer: if it is gone, free the mount with: "
		                "fusermount3 -u %s", m->mountpoint, m->mountpoint);
	if (r < 0)
		return complain("the daemon of %s broke off: %s", m->mountpoint, strerror(-r));
	if (ret->error) {
		r = complain("%s", or_empty(ret->error_text));
		control_answer_fini(ret);
		return r;
	}
	return OK;
}

/* -- status -- */

/* The daemon's sentence, or what the errno says. */
static const char *why(const char *text, int64_t error)
{
	return *or_empty(text) ? text : strerror((int)error);
}

static void print_staged(const struct control_rev *rev)
{
	char size[24], files[40], deletions[40];

	if (!rev->files && !rev->deletions && !rev->open && !rev->interrupted && !rev->conflicts &&
	    !rev->n_changes) {
		printf("nothing staged\n");
		return;
	}
	printf("staged %s (%s), %s", count_text(rev->files, "file", files), size_text(rev->bytes, size),
	       count_text(rev->deletions, "deletion", deletions));
	if (rev->open)
		printf(", %" PRIu64 " open", rev->open);
	if (rev->interrupted)
		printf(", %" PRIu64 " interrupted", rev->interrupted);
	if (rev->conflicts)
		printf(", %" PRIu64 " in conflict", rev->conflicts);
	putchar('\n');
}

static void print_phase(const struct control_rev *rev)
{
	const char *phase = or_empty(rev->phase);
	char sent[24], all[24];

	if (strcmp(phase, "idle") == 0)
		return;
	printf("    %s", phase);
	if (rev->to_send)
		printf(": %s of %s", size_text(rev->sent, sent), size_text(rev->to_send, all));
	if (rev->next_ms >= 0)
		printf(", next try in %.1f s", (double)rev->next_ms / 1000);
	putchar('\n');
}

static void print_rev(const struct control_rev *rev)
{
	char size[24];

	printf("  %s@%s at %.12s%s: ", rev->repo, rev->revision, *or_empty(rev->head) ? rev->head : "-",
	       rev->writable ? "" : ", read-only");
	print_staged(rev);
	print_phase(rev);
	if (*or_empty(rev->last_commit))
		printf("    last commit %s\n", rev->last_commit);
	if (rev->last_error) {
		printf("    last error: ");
		print_name(stdout, why(rev->last_text, rev->last_error));
		putchar('\n');
	}
	for (size_t i = 0; i < rev->n_changes && i < CHANGES_SHOWN; i++) {
		const struct control_change *c = &rev->changes[i];

		printf("    %-11s %10s  ", or_empty(c->state),
		       c->folder ? "folder" : size_text(c->size, size));
		print_name(stdout, or_empty(c->path));
		putchar('\n');
	}
	if (rev->n_changes > CHANGES_SHOWN)
		printf("    … and %zu more (--json lists them)\n", rev->n_changes - CHANGES_SHOWN);
}

static void print_mount(const struct control_answer *a)
{
	char used[24], max[24];

	print_name(stdout, or_empty(a->mountpoint));
	printf("  %s  pid %" PRIu64 "%s%s\n", or_empty(a->source), a->pid, a->read_only ? "  read-only" : "",
	       a->unmounted ? "  unmounted, publishes what is left" : "");
	printf("  cache %s of %s", size_text(a->cache_bytes, used), size_text(a->cache_max, max));
	if (a->parked)
		printf("; %" PRIu64 " requests wait for the network", a->parked);
	putchar('\n');
	for (size_t i = 0; i < a->n_revs; i++)
		print_rev(&a->revs[i]);
}

static void json_change(struct hub_json_writer *w, const struct control_change *c)
{
	hub_json_write_object(w, NULL);
	hub_json_write_string(w, "path", c->path);
	hub_json_write_string(w, "state", c->state);
	hub_json_write_string(w, "kind", c->folder ? "folder" : "file");
	hub_json_write_number(w, "size", (int64_t)c->size);
	hub_json_write_end(w);
}

static void json_rev(struct hub_json_writer *w, const struct control_rev *rev)
{
	hub_json_write_object(w, NULL);
	hub_json_write_string(w, "repo", rev->repo);
	hub_json_write_string(w, "revision", rev->revision);
	hub_json_write_string(w, "head", rev->head);
	hub_json_write_bool(w, "writable", rev->writable);
	hub_json_write_string(w, "phase", rev->phase);
	hub_json_write_number(w, "next_ms", rev->next_ms);
	hub_json_write_number(w, "sent", (int64_t)rev->sent);
	hub_json_write_number(w, "to_send", (int64_t)rev->to_send);
	hub_json_write_string(w, "last_commit", rev->last_commit);
	hub_json_write_string(w, "last_error",
	                      rev->last_error ? strerrorname_np((int)rev->last_error) : NULL);
	hub_json_write_string(w, "last_error_text", rev->last_error ? rev->last_text : NULL);
	hub_json_write_object(w, "staged");
	hub_json_write_number(w, "files", (int64_t)rev->files);
	hub_json_write_number(w, "deletions", (int64_t)rev->deletions);
	hub_json_write_number(w, "open", (int64_t)rev->open);
	hub_json_write_number(w, "interrupted", (int64_t)rev->interrupted);
	hub_json_write_number(w, "conflicts", (int64_t)rev->conflicts);
	hub_json_write_number(w, "bytes", (int64_t)rev->bytes);
	hub_json_write_end(w);
	hub_json_write_array(w, "changes");
	for (size_t i = 0; i < rev->n_changes; i++)
		json_change(w, &rev->changes[i]);
	hub_json_write_end(w);
	hub_json_write_end(w);
}

static void json_mount(struct hub_json_writer *w, const struct control_answer *a)
{
	hub_json_write_object(w, NULL);
	hub_json_write_string(w, "mountpoint", a->mountpoint);
	hub_json_write_string(w, "source", a->source);
	hub_json_write_string(w, "endpoint", a->endpoint);
	hub_json_write_number(w, "pid", (int64_t)a->pid);
	hub_json_write_bool(w, "read_only", a->read_only);
	hub_json_write_bool(w, "unmounted", a->unmounted);
	hub_json_write_number(w, "parked", (int64_t)a->parked);
	hub_json_write_object(w, "cache");
	hub_json_write_number(w, "bytes", (int64_t)a->cache_bytes);
	hub_json_write_number(w, "max_bytes", (int64_t)a->cache_max);
	hub_json_write_number(w, "objects", (int64_t)a->cache_objects);
	hub_json_write_end(w);
	hub_json_write_array(w, "revisions");
	for (size_t i = 0; i < a->n_revs; i++)
		json_rev(w, &a->revs[i]);
	hub_json_write_end(w);
	hub_json_write_end(w);
}

static int print_json(const struct control_answer *all, size_t n)
{
	AUTO_BUF out = {.max = SIZE_MAX - 1};
	struct hub_json_writer w;
	int r;

	hub_json_write_init(&w, &out);
	hub_json_write_object(&w, NULL);
	hub_json_write_array(&w, "mounts");
	for (size_t i = 0; i < n; i++)
		json_mount(&w, &all[i]);
	hub_json_write_end(&w);
	hub_json_write_end(&w);
	r = hub_json_write_done(&w);
	if (r < 0)
		return complain("%s", strerror(-r));
	puts(out.data);
	return OK;
}

static int print_mounts(const struct control_answer *all, size_t n, bool json)
{
	if (json)
		return print_json(all, n);
	if (n == 0)
		puts("nothing is mounted by this user");
	for (size_t i = 0; i < n; i++)
		print_mount(&all[i]);
	return OK;
}

static int status_of_all(bool json)
{
	char **sockets CLEANUP(control_sockets_freep) = NULL;
	char root[] = "";
	const struct control_request req = {.verb = CONTROL_STATUS, .path = root};
	AUTO_FREE struct control_answer *all = NULL;
	size_t n = 0, count = 0;
	int r = control_sockets(geteuid(), NULL, &sockets);

	if (r < 0)
		return complain("%s", strerror(-r));
	while (sockets[count])
		count++;
	all = calloc(count + 1, sizeof(*all));
	if (!all)
		return complain("out of memory");
	for (size_t i = 0; i < count; i++)
		n += control_ask(sockets[i], &req, &all[n], NULL) == 0;
	r = print_mounts(all, n, json);
	for (size_t i = 0; i < n; i++)
		control_answer_fini(&all[i]);
	return r;
}

static int status_of(const char *path, bool json)
{
	struct control_mount m = {0};
	struct control_answer ans = {0};
	int r = find(path, &m);

	if (r == OK) {
		const struct control_request req = {.verb = CONTROL_STATUS, .path = m.path};

		r = ask(&m, &req, &ans);
	}
	if (r == OK)
		r = print_mounts(&ans, 1, json);
	control_answer_fini(&ans);
	control_mount_fini(&m);
	return r;
}

static int verb_status(int argc, char **argv)
{
	const char *path = NULL;
	bool json = false;

	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--json") == 0)
			json = true;
		else if (argv[i][0] == '-' || path)
			return usage(argv[0]);
		else
			path = argv[i];
	}
	return path ? status_of(path, json) : status_of_all(json);
}

/* -- commit -- */

/* The names of changes in one of two states (NULL: in any), to stderr. */
static void list_changes(const struct control_rev *rev, const char *one, const char *other)
{
	size_t n = 0;

	for (size_t i = 0; i < rev->n_changes; i++) {
		const char *state = or_empty(rev->changes[i].state);

		if (one && strcmp(state, one) != 0 && strcmp(state, other) != 0)
			continue;
		if (++n > CHANGES_SHOWN)
			continue;
		fprintf(stderr, "  %-11s ", state);
		print_name(stderr, or_empty(rev->changes[i].path));
		fputc('\n', stderr);
	}
	if (n > CHANGES_SHOWN)
		fprintf(stderr, "  and %zu more\n", n - CHANGES_SHOWN);
}

static void print_left_out(const struct control_rev *rev)
{
	char files[40];

	complain("%s@%s: left out, because open or interrupted: %s", rev->repo, rev->revision,
	         count_text(rev->left_out, "file", files));
	list_changes(rev, "open", "interrupted");
}

static void print_failure(const struct control_rev *rev)
{
	complain("%s@%s: %s", rev->repo, rev->revision, why(rev->error_text, rev->error));
}

static int print_committed(const struct control_rev *rev)
{
	int r = OK;

	if (*or_empty(rev->commit))
		puts(*or_empty(rev->url) ? rev->url : rev->commit);
	else if (!rev->error)
		printf("%s@%s: nothing to commit\n", rev->repo, rev->revision);
	if (rev->left_out) {
		print_left_out(rev);
		r = PARTLY;
	}
	if (rev->error) {
		print_failure(rev);
		r = FAILED;
	}
	return r;
}

static int commit_at(const char *path, struct control_request *req)
{
	struct control_mount m = {0};
	struct control_answer ans = {0};
	int r = find(path, &m);

	if (r == OK) {
		req->path = m.path;
		r = ask(&m, req, &ans);
	}
	if (r == OK && ans.n_revs == 0)
		puts("nothing to commit");
	for (size_t i = 0; i < ans.n_revs; i++) {
		int one = print_committed(&ans.revs[i]);

		r = r == FAILED || one == OK ? r : one;
	}
	control_answer_fini(&ans);
	control_mount_fini(&m);
	return r;
}

static int verb_commit(int argc, char **argv)
{
	AUTO_BUF text = {.max = DESCRIPTION_MAX};
	struct control_request req = {.verb = CONTROL_COMMIT};
	const char *path = NULL;

	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "-m") == 0 && i + 1 < argc) {
			i++;
			if (!req.title)
				req.title = argv[i];
			else if (buf_addf(&text, "%s%s", text.len ? "\n\n" : "", argv[i]) < 0)
				return complain("the message is too long");
		} else if (strcmp(argv[i], "--interrupted") == 0) {
			req.interrupted = true;
		} else if (argv[i][0] == '-' || path) {
			return usage(argv[0]);
		} else {
			path = argv[i];
		}
	}
	req.description = text.data;
	return path ? commit_at(path, &req) : usage(argv[0]);
}

/* -- discard -- */

static size_t print_what_goes(const struct control_answer *ans)
{
	size_t n = 0;

	for (size_t i = 0; i < ans->n_revs; i++) {
		const struct control_rev *rev = &ans->revs[i];

		for (size_t k = 0; k < rev->n_changes; k++, n++) {
			if (n >= CHANGES_SHOWN)
				continue;
			printf("  %-11s ", or_empty(rev->changes[k].state));
			print_name(stdout, or_empty(rev->changes[k].path));
			putchar('\n');
		}
	}
	return n;
}

static bool agreed(size_t n)
{
	char line[16];

	printf("Throw %s away for good? [y/N] ", n == 1 ? "this change" : "these changes");
	fflush(stdout);
	return fgets(line, sizeof(line), stdin) && (line[0] == 'y' || line[0] == 'Y');
}

static int discard_at(const struct control_mount *m, bool sure)
{
	const struct control_request look = {.verb = CONTROL_STATUS, .path = m->path};
	const struct control_request req = {.verb = CONTROL_DISCARD, .path = m->path};
	struct control_answer ans = {0};
	size_t n;
	int r = ask(m, &look, &ans);

	if (r != OK)
		return r;
	n = print_what_goes(&ans);
	control_answer_fini(&ans);
	if (n == 0) {
		puts("nothing is staged there");
		return OK;
	}
	if (!sure && !agreed(n))
		return complain("nothing was thrown away (-y does it without asking)");
	ans = (struct control_answer){0};
	r = ask(m, &req, &ans);
	control_answer_fini(&ans);
	return r;
}

static int verb_discard(int argc, char **argv)
{
	struct control_mount m = {0};
	const char *path = NULL;
	bool sure = false;
	int r;

	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "-y") == 0)
			sure = true;
		else if (argv[i][0] == '-' || path)
			return usage(argv[0]);
		else
			path = argv[i];
	}
	if (!path)
		return usage(argv[0]);
	r = find(path, &m);
	if (r == OK)
		r = discard_at(&m, sure);
	control_mount_fini(&m);
	return r;
}

/* -- umount -- */

static int complain_busy(const char *mountpoint)
{
	AUTO_BUF holders = {.max = (size_t)64 << 10};

	if (control_holders(mountpoint, &holders) < 0 || holders.len == 0)
		return complain("%s is busy and stays mounted: somebody has files open in it, or something "
		                "is mounted in it", mountpoint);
	complain("%s is busy and stays mounted: these processes have files open in it:", mountpoint);
	for (size_t i = 0; i < holders.len; i++) {
		if (i == 0 || holders.data[i - 1] == '\n')
			fputs("  ", stderr);
		fputc(holders.data[i], stderr);
	}
	return FAILED;
}

/* The daemon is gone: only the kernel has to be told. */
static int umount_dead(const char *mountpoint)
{
	int r = control_detach(mountpoint, false);

	if (r == -EBUSY)
		return complain_busy(mountpoint);
	if (r < 0)
		return complain("%s: %s", mountpoint, strerror(-r));
	complain("the daemon of %s was gone; what was staged is kept for the next mount", mountpoint);
	return OK;
}

static int print_unpublished(const struct control_answer *ans)
{
	int r = OK;

	for (size_t i = 0; i < ans->n_revs; i++) {
		const struct control_rev *rev = &ans->revs[i];
		char size[24], files[40], deletions[40];

		if (*or_empty(rev->commit))
			puts(*or_empty(rev->url) ? rev->url : rev->commit);
		if (!rev->n_changes)
			continue;
		if (rev->error)
			print_failure(rev);
		complain("%s@%s: staged for the next mount: %s (%s), %s", rev->repo, rev->revision,
		         count_text(rev->files, "file", files), size_text(rev->bytes, size),
		         count_text(rev->deletions, "deletion", deletions));
		list_changes(rev, NULL, NULL);
		r = PARTLY;
	}
	return r;
}

/* The daemon keeps the connection until its process has ended. */
static void wait_for_end(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	if (poll(&p, 1, END_MS) == 0)
		complain("the daemon still runs: it ends by itself");
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
		return complain("/: %s", strerror(errno));
	r = ask_mount(m, &req, &ans, &fd);
	if (r == -ECONNREFUSED)
		return umount_dead(m->mountpoint);
	if (r < 0)
		return complain("the daemon of %s broke off: %s", m->mountpoint, strerror(-r));
	if (ans.error == EBUSY)
		r = complain_busy(m->mountpoint);
	else if (ans.error)
		r = complain("%s stays mounted: %s", m->mountpoint, or_empty(ans.error_text));
	else
		r = print_unpublished(&ans);
	if (ans.error)
		close(fd);
	else
		wait_for_end(fd);
	control_answer_fini(&ans);
	return r;
}

static int verb_umount(int argc, char **argv)
{
	struct control_mount m = {0};
	int r;

	if (argc != 2 || argv[1][0] == '-')
		return usage(argv[0]);
	r = find(argv[1], &m);
	if (r == OK)
		r = umount_at(&m);
	control_mount_fini(&m);
	return r;
}

const struct cli_verb cli_verbs[] = {
	{"status", "[--json] [PATH]", "what is mounted, staged, open, under way and published last",
	 verb_status},
	{"commit", "[-m TITLE [-m TEXT]...] [--interrupted] PATH",
	 "publishes what is staged there now and prints the commit's URL; exit 3: open files were left out",
	 verb_commit},
	{"discard", "[-y] PATH", "throws what is staged at PATH and below it away", verb_discard},
	{"umount", "MOUNTPOINT",
	 "publishes what is settled, then unmounts; exit 3: something stays staged; exit 1: files are open",
	 verb_umount},
	{NULL, NULL, NULL, NULL},
};
