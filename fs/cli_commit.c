/* cli_commit: the verbs about what is staged: commit, discard. One thread. */
#define LOG_MODULE "cli"

#include "cli_internal.h"

#include <errno.h>
#include <string.h>


/* -- commit -- */

/* The names of changes in one of two states (NULL: in any), to stderr. */
void cli_list_changes(const struct control_rev *rev, const char *one, const char *other)
{
	size_t n = 0;

	for (size_t i = 0; i < rev->n_changes; i++) {
		const char *state = cli_or_empty(rev->changes[i].state);

		if (one && strcmp(state, one) != 0 && strcmp(state, other) != 0)
			continue;
		if (++n > CLI_CHANGES_SHOWN)
			continue;
		fprintf(stderr, "  %-11s ", state);
		cli_print_name(stderr, cli_or_empty(rev->changes[i].path));
		fputc('\n', stderr);
	}
	if (n > CLI_CHANGES_SHOWN)
		fprintf(stderr, "  and %zu more\n", n - CLI_CHANGES_SHOWN);
}

static void print_left_out(const struct control_rev *rev)
{
	char files[40];

	cli_complain("%s@%s: left out, because open or interrupted: %s", rev->repo, rev->revision,
	         cli_count_text(rev->left_out, "file", files));
	cli_list_changes(rev, "open", "interrupted");
}

void cli_print_failure(const struct control_rev *rev)
{
	cli_complain("%s@%s: %s", rev->repo, rev->revision, cli_why(rev->error_text, rev->error));
}

int cli_print_committed(const struct control_rev *rev)
{
	int r = CLI_OK;

	if (*cli_or_empty(rev->commit))
		puts(*cli_or_empty(rev->url) ? rev->url : rev->commit);
	else if (!rev->error)
		printf("%s@%s: nothing to commit\n", rev->repo, rev->revision);
	if (rev->left_out) {
		print_left_out(rev);
		r = CLI_PARTLY;
	}
	if (rev->error) {
		cli_print_failure(rev);
		r = CLI_FAILED;
	}
	return r;
}

static int commit_at(const char *path, struct control_request *req)
{
	struct control_mount m = {0};
	struct control_answer ans = {0};
	int r = cli_find(path, &m);

	if (r == CLI_OK) {
		req->path = m.path;
		r = cli_ask(&m, req, &ans);
	}
	if (r == CLI_OK && ans.n_revs == 0)
		puts("nothing to commit");
	for (size_t i = 0; i < ans.n_revs; i++) {
		int one = cli_print_committed(&ans.revs[i]);

		r = r == CLI_FAILED || one == CLI_OK ? r : one;
	}
	control_answer_fini(&ans);
	control_mount_fini(&m);
	return r;
}

int cli_add_message(struct control_request *req, struct buf *text, char *words)
{
	if (!req->title) {
		req->title = words;
		return 0;
	}
	return buf_addf(text, "%s%s", text->len ? "\n\n" : "", words);
}

static bool is_way(const char *word)
{
	return strcmp(word, "keep") == 0 || strcmp(word, "pr") == 0 || strcmp(word, "ours") == 0;
}

int cli_commit(int argc, char **argv)
{
	AUTO_BUF text = {.max = CLI_DESCRIPTION_MAX};
	struct control_request req = {.verb = CONTROL_COMMIT};
	const char *path = NULL;

	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "-m") == 0 && i + 1 < argc) {
			if (cli_add_message(&req, &text, argv[++i]) < 0)
				return cli_complain("the message is too long");
		} else if (strcmp(argv[i], "--interrupted") == 0) {
			req.interrupted = true;
		} else if (strcmp(argv[i], "--pr") == 0) {
			req.pr = true;
		} else if (strncmp(argv[i], "--on-conflict=", 14) == 0) {
			req.on_conflict = argv[i] + 14;
			if (!is_way(req.on_conflict))
				return cli_usage(argv[0]);
		} else if (argv[i][0] == '-' || path) {
			return cli_usage(argv[0]);
		} else {
			path = argv[i];
		}
	}
	req.description = text.data;
	return path ? commit_at(path, &req) : cli_usage(argv[0]);
}

/* -- discard -- */

static size_t print_what_goes(const struct control_answer *ans)
{
	size_t n = 0;

	for (size_t i = 0; i < ans->n_revs; i++) {
		const struct control_rev *rev = &ans->revs[i];

		for (size_t k = 0; k < rev->n_changes; k++, n++) {
			if (n >= CLI_CHANGES_SHOWN)
				continue;
			printf("  %-11s ", cli_or_empty(rev->changes[k].state));
			cli_print_name(stdout, cli_or_empty(rev->changes[k].path));
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
	bool held = false;
	size_t n;
	int r = cli_ask(m, &look, &ans);

	if (r != CLI_OK)
		return r;
	n = print_what_goes(&ans);
	for (size_t i = 0; i < ans.n_revs; i++)
		held = held || *cli_or_empty(ans.revs[i].transaction);
	control_answer_fini(&ans);
	if (n == 0 && !held) {
		puts("nothing is staged there");
		return CLI_OK;
	}
	if (n > 0 && !sure && !agreed(n))
		return cli_complain("nothing was thrown away (-y does it without asking)");
	ans = (struct control_answer){0};
	r = cli_ask(m, &req, &ans);
	control_answer_fini(&ans);
	return r;
}

int cli_discard(int argc, char **argv)
{
	struct control_mount m = {0};
	const char *path = NULL;
	bool sure = false;
	int r;

	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "-y") == 0)
			sure = true;
		else if (argv[i][0] == '-' || path)
			return cli_usage(argv[0]);
		else
			path = argv[i];
	}
	if (!path)
		return cli_usage(argv[0]);
	r = cli_find(path, &m);
	if (r == CLI_OK)
		r = discard_at(&m, sure);
	control_mount_fini(&m);
	return r;
}
