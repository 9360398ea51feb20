/* cli_status: the verb status, for people or as JSON. One thread. */
#define LOG_MODULE "cli"

#include "cli_internal.h"

#include <inttypes.h>
#include <string.h>
#include <unistd.h>

static void print_staged(const struct control_rev *rev)
{
	char size[24], files[40], deletions[40];

	if (!rev->files && !rev->deletions && !rev->open && !rev->interrupted && !rev->conflicts &&
	    !rev->n_changes) {
		printf("nothing staged\n");
		return;
	}
	printf("staged %s (%s), %s", cli_count_text(rev->files, "file", files), cli_size_text(rev->bytes, size),
	       cli_count_text(rev->deletions, "deletion", deletions));
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
	const char *phase = cli_or_empty(rev->phase);
	char sent[24], all[24];

	if (strcmp(phase, "idle") == 0)
		return;
	printf("    %s", phase);
	if (rev->to_send)
		printf(": %s of %s", cli_size_text(rev->sent, sent), cli_size_text(rev->to_send, all));
	if (rev->next_ms >= 0)
		printf(", next try in %.1f s", (double)rev->next_ms / 1000);
	putchar('\n');
}

static void print_rev(const struct control_rev *rev)
{
	char size[24];

	printf("  %s@%s at %.12s%s: ", rev->repo, rev->revision, *cli_or_empty(rev->head) ? rev->head : "-",
	       rev->writable ? "" : ", read-only");
	print_staged(rev);
	print_phase(rev);
	if (*cli_or_empty(rev->last_commit))
		printf("    last commit %s\n", rev->last_commit);
	if (*cli_or_empty(rev->transaction))
		printf("    a transaction is %s\n", rev->transaction);
	if (*cli_or_empty(rev->pr_url))
		printf("    pull request %s\n", rev->pr_url);
	if (rev->last_error) {
		printf("    last error: ");
		cli_print_name(stdout, cli_why(rev->last_text, rev->last_error));
		putchar('\n');
	}
	for (size_t i = 0; i < rev->n_changes && i < CLI_CHANGES_SHOWN; i++) {
		const struct control_change *c = &rev->changes[i];

		printf("    %-11s %10s  ", cli_or_empty(c->state),
		       c->folder ? "folder" : cli_size_text(c->size, size));
		cli_print_name(stdout, cli_or_empty(c->path));
		putchar('\n');
	}
	if (rev->n_changes > CLI_CHANGES_SHOWN)
		printf("    … and %zu more (--json lists them)\n", rev->n_changes - CLI_CHANGES_SHOWN);
}

static void print_mount(const struct control_answer *a)
{
	char used[24], max[24];

	cli_print_name(stdout, cli_or_empty(a->mountpoint));
	printf("  %s  pid %" PRIu64 "%s%s\n", cli_or_empty(a->source), a->pid, a->read_only ? "  read-only" : "",
	       a->unmounted ? "  unmounted, publishes what is left" : "");
	printf("  cache %s of %s", cli_size_text(a->cache_bytes, used), cli_size_text(a->cache_max, max));
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
	hub_json_write_string(w, "transaction", rev->transaction);
	hub_json_write_string(w, "pull_request", rev->pr_url);
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

	hub_json_write_init(&w, &out);
	hub_json_write_object(&w, NULL);
	hub_json_write_array(&w, "mounts");
	for (size_t i = 0; i < n; i++)
		json_mount(&w, &all[i]);
	hub_json_write_end(&w);
	hub_json_write_end(&w);
	return cli_print_json(&w);
}

static int print_mounts(const struct control_answer *all, size_t n, bool json)
{
	if (json)
		return print_json(all, n);
	if (n == 0)
		puts("nothing is mounted by this user");
	for (size_t i = 0; i < n; i++)
		print_mount(&all[i]);
	return CLI_OK;
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
		return cli_complain("%s", strerror(-r));
	while (sockets[count])
		count++;
	all = calloc(count + 1, sizeof(*all));
	if (!all)
		return cli_complain("out of memory");
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
	int r = cli_find(path, &m);

	if (r == CLI_OK) {
		const struct control_request req = {.verb = CONTROL_STATUS, .path = m.path};

		r = cli_ask(&m, &req, &ans);
	}
	if (r == CLI_OK)
		r = print_mounts(&ans, 1, json);
	control_answer_fini(&ans);
	control_mount_fini(&m);
	return r;
}

int cli_status(int argc, char **argv)
{
	const char *path;
	bool json;
	int r = cli_json_and_path(argc, argv, &json, &path);

	if (r != CLI_OK)
		return r;
	return path ? status_of(path, json) : status_of_all(json);
}
