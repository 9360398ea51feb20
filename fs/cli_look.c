/* cli_look: the verbs that look: diff, log, tag, refresh. One thread. */
#define LOG_MODULE "cli"

#include "cli_internal.h"

#include <inttypes.h>
#include <string.h>
#include <time.h>

#define LOG_LIMIT 20
#define LOG_LIMIT_MAX 999

/* Asks about one path; the exit status. */
static int ask_about(const char *path, struct control_request *req, struct control_answer *ret)
{
	struct control_mount m = {0};
	int r = cli_find(path, &m);

	if (r == CLI_OK) {
		req->path = m.path;
		r = cli_ask(&m, req, ret);
	}
	control_mount_fini(&m);
	return r;
}

/* -- diff -- */

static void print_change(const struct control_change *c)
{
	char now[24], before[24];

	printf("  %-8s ", cli_or_empty(c->state));
	if (c->folder)
		printf("%23s  ", "folder");
	else if (strcmp(c->state, "changed") == 0)
		printf("%10s > %10s  ", cli_size_text(c->old_size, before), cli_size_text(c->size, now));
	else
		printf("%23s  ", cli_size_text(strcmp(c->state, "deleted") == 0 ? c->old_size : c->size, now));
	if (c->from) {
		cli_print_name(stdout, c->from);
		fputs(" > ", stdout);
	}
	cli_print_name(stdout, cli_or_empty(c->path));
	putchar('\n');
}

static int print_diff(const struct control_answer *ans)
{
	for (size_t i = 0; i < ans->n_revs; i++) {
		const struct control_rev *rev = &ans->revs[i];

		if (!rev->n_changes)
			continue;
		printf("%s@%s\n", rev->repo, rev->revision);
		for (size_t k = 0; k < rev->n_changes; k++)
			print_change(&rev->changes[k]);
	}
	return CLI_OK;
}

static int json_diff(const struct control_answer *ans)
{
	AUTO_BUF out = {.max = SIZE_MAX - 1};
	struct hub_json_writer w;

	hub_json_write_init(&w, &out);
	hub_json_write_object(&w, NULL);
	hub_json_write_array(&w, "revisions");
	for (size_t i = 0; i < ans->n_revs; i++) {
		const struct control_rev *rev = &ans->revs[i];

		hub_json_write_object(&w, NULL);
		hub_json_write_string(&w, "repo", rev->repo);
		hub_json_write_string(&w, "revision", rev->revision);
		hub_json_write_array(&w, "changes");
		for (size_t k = 0; k < rev->n_changes; k++) {
			const struct control_change *c = &rev->changes[k];

			hub_json_write_object(&w, NULL);
			hub_json_write_string(&w, "change", c->state);
			hub_json_write_string(&w, "path", c->path);
			hub_json_write_string(&w, "from", c->from);
			hub_json_write_string(&w, "kind", c->folder ? "folder" : "file");
			hub_json_write_number(&w, "size", (int64_t)c->size);
			hub_json_write_number(&w, "old_size", (int64_t)c->old_size);
			hub_json_write_end(&w);
		}
		hub_json_write_end(&w);
		hub_json_write_end(&w);
	}
	hub_json_write_end(&w);
	hub_json_write_end(&w);
	return cli_print_json(&w);
}

int cli_diff(int argc, char **argv)
{
	struct control_request req = {.verb = CONTROL_DIFF};
	struct control_answer ans = {0};
	const char *path;
	bool json;
	int r = cli_json_and_path(argc, argv, &json, &path);

	if (r != CLI_OK)
		return r;
	r = ask_about(path ? path : ".", &req, &ans);
	if (r == CLI_OK)
		r = json ? json_diff(&ans) : print_diff(&ans);
	control_answer_fini(&ans);
	return r;
}

/* -- log -- */

static void date_text(int64_t date_s, char out[32])
{
	time_t at = date_s;
	struct tm tm;

	if (!localtime_r(&at, &tm) || !strftime(out, 32, "%Y-%m-%d %H:%M", &tm))
		snprintf(out, 32, "%" PRId64, date_s);
}

static int print_log(const struct control_answer *ans)
{
	for (size_t i = 0; i < ans->n_items; i++) {
		const struct control_item *it = &ans->items[i];
		char date[32];

		date_text(it->date_s, date);
		printf("%.12s  %s  ", it->id, date);
		cli_print_name(stdout, *it->author ? it->author : "-");
		fputs("  ", stdout);
		cli_print_name(stdout, it->title);
		putchar('\n');
	}
	return CLI_OK;
}

static int json_log(const struct control_answer *ans)
{
	AUTO_BUF out = {.max = SIZE_MAX - 1};
	struct hub_json_writer w;

	hub_json_write_init(&w, &out);
	hub_json_write_object(&w, NULL);
	hub_json_write_array(&w, "commits");
	for (size_t i = 0; i < ans->n_items; i++) {
		const struct control_item *it = &ans->items[i];

		hub_json_write_object(&w, NULL);
		hub_json_write_string(&w, "id", it->id);
		hub_json_write_number(&w, "date", it->date_s);
		hub_json_write_string(&w, "author", it->author);
		hub_json_write_string(&w, "title", it->title);
		hub_json_write_end(&w);
	}
	hub_json_write_end(&w);
	hub_json_write_end(&w);
	return cli_print_json(&w);
}

int cli_log(int argc, char **argv)
{
	struct control_request req = {.verb = CONTROL_LOG, .limit = LOG_LIMIT};
	struct control_answer ans = {0};
	const char *path = NULL;
	bool json = false;
	int r;

	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--json") == 0)
			json = true;
		else if (strcmp(argv[i], "-n") == 0 && i + 1 < argc)
			req.limit = strtoul(argv[++i], NULL, 10);
		else if (argv[i][0] == '-' || path)
			return cli_usage(argv[0]);
		else
			path = argv[i];
	}
	if (!path || req.limit < 1 || req.limit > LOG_LIMIT_MAX)
		return cli_usage(argv[0]);
	r = ask_about(path, &req, &ans);
	if (r == CLI_OK)
		r = json ? json_log(&ans) : print_log(&ans);
	control_answer_fini(&ans);
	return r;
}

/* -- tag -- */

int cli_tag(int argc, char **argv)
{
	AUTO_BUF text = {.max = CLI_DESCRIPTION_MAX};
	struct control_request req = {.verb = CONTROL_TAG}, message = {0};
	struct control_answer ans = {0};
	const char *path = NULL;
	int r;

	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "-m") == 0 && i + 1 < argc) {
			if (cli_add_message(&message, &text, argv[++i]) < 0)
				return cli_complain("the message is too long");
		} else if (argv[i][0] == '-' || path) {
			return cli_usage(argv[0]);
		} else if (!req.title) {
			req.title = argv[i];
		} else {
			path = argv[i];
		}
	}
	if (!path)
		return cli_usage(argv[0]);
	req.description = message.title;
	r = ask_about(path, &req, &ans);
	if (r == CLI_OK && ans.n_revs)
		printf("%s: %s is %s@%s at %.12s\n", req.title, req.title, ans.revs[0].repo, ans.revs[0].revision,
		       ans.revs[0].head);
	control_answer_fini(&ans);
	return r;
}

/* -- refresh -- */

int cli_refresh(int argc, char **argv)
{
	struct control_request req = {.verb = CONTROL_REFRESH};
	struct control_answer ans = {0};
	int r;

	if (argc > 2 || (argc == 2 && argv[1][0] == '-'))
		return cli_usage(argv[0]);
	r = ask_about(argc == 2 ? argv[1] : ".", &req, &ans);
	for (size_t i = 0; r != CLI_WRONG && i < ans.n_revs; i++) {
		const struct control_rev *rev = &ans.revs[i];

		if (rev->error) {
			cli_print_failure(rev);
			r = CLI_FAILED;
		} else {
			printf("%s@%s at %.12s\n", rev->repo, rev->revision, cli_or_empty(rev->head));
		}
	}
	control_answer_fini(&ans);
	return r;
}
