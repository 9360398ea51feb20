/* cli_internal: what the files of cli share: cli.c (asking, words), cli_status.c (what there is), cli_commit.c (what is
 * staged), cli_umount.c. For cli*.c only. */
#ifndef HUGFS_CLI_INTERNAL_H
#define HUGFS_CLI_INTERNAL_H

#include "cli.h"
#include "control.h"
#include "hub_json.h"

#define CLI_CHANGES_SHOWN 100 /* --json shows all that the daemon tells */

/* Exit statuses. */
enum { CLI_OK, CLI_FAILED, CLI_WRONG, CLI_PARTLY };

/* One line on stderr; CLI_FAILED. */
int cli_complain(const char *fmt, ...) PRINTF(1, 2);
/* How the verb is used; CLI_WRONG. */
int cli_usage(const char *verb);
const char *cli_or_empty(const char *text);
/* The words of a verb that takes [--json] [PATH]: 0, or CLI_WRONG after it said how it is used. ret_path: NULL when none is given. */
int cli_json_and_path(int argc, char **argv, bool *ret_json, const char **ret_path) MUST_USE;
/* Prints what was written; the exit status. */
int cli_print_json(struct hub_json_writer *w);
/* A name as it is, but nothing in it moves a terminal's cursor. */
void cli_print_name(FILE *to, const char *name);
/* "1.5 MiB" */
const char *cli_size_text(uint64_t bytes, char out[24]);
/* "1 file", "2 files" */
const char *cli_count_text(uint64_t n, const char *what, char out[40]);
/* Why something failed, in words. */
const char *cli_why(const char *text, int64_t error);

/* Which mount `path` lies in; CLI_FAILED with a complaint. */
int cli_find(const char *path, struct control_mount *ret) MUST_USE;
/* Asks the daemon of that mount; of several, which happens when one still publishes for a mount that is
 * gone, the one that is mounted. -ECONNREFUSED: it has none. */
int cli_ask_mount(const struct control_mount *m, const struct control_request *req, struct control_answer *ret,
                  int *ret_fd) MUST_USE;
/* The same, with complaints: an exit status. */
int cli_ask(const struct control_mount *m, const struct control_request *req, struct control_answer *ret) MUST_USE;

/* The names of changes in one of two states (NULL: in any), to stderr. */
void cli_list_changes(const struct control_rev *rev, const char *one, const char *other);
/* What a commit of one revision came to; the exit status. */
int cli_print_committed(const struct control_rev *rev);
/* The words of one -m: the first are the title, the others paragraphs of the description. */
#define CLI_DESCRIPTION_MAX ((size_t)64 << 10)
int cli_add_message(struct control_request *req, struct buf *text, char *words) MUST_USE;
void cli_print_failure(const struct control_rev *rev);

/* The verbs. */
int cli_status(int argc, char **argv);
int cli_commit(int argc, char **argv);
int cli_run(int argc, char **argv);
int cli_discard(int argc, char **argv);
int cli_umount(int argc, char **argv);
int cli_diff(int argc, char **argv);
int cli_log(int argc, char **argv);
int cli_tag(int argc, char **argv);
int cli_refresh(int argc, char **argv);
int cli_fetch(int argc, char **argv);
int cli_cache(int argc, char **argv);
int cli_doctor(int argc, char **argv);

#endif
