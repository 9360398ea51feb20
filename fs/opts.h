/* opts: THE option table: -o, the environment, --help, the manual and the completion come from it.
 *
 * No I/O but for the environment and the password file; one thread, before anything else starts. A struct
 * opts does not change once the mount exists. */
#ifndef HUGFS_OPTS_H
#define HUGFS_OPTS_H

#include <sys/types.h>

#include "util.h"

enum opts_commit { OPTS_COMMIT_CLOSE, OPTS_COMMIT_SYNC, OPTS_COMMIT_FSYNC, OPTS_COMMIT_MANUAL };
enum opts_on_conflict { OPTS_CONFLICT_KEEP, OPTS_CONFLICT_PR, OPTS_CONFLICT_OURS }; /* as commit_on_conflict */
enum opts_create { OPTS_CREATE_PRIVATE, OPTS_CREATE_PUBLIC, OPTS_CREATE_NO };
enum opts_sdk { OPTS_SDK_STATIC, OPTS_SDK_GRADIO, OPTS_SDK_DOCKER, OPTS_SDK_STREAMLIT };
enum opts_fsync { OPTS_FSYNC_PUBLISH, OPTS_FSYNC_STAGE };

struct opts {
	/* -- what a mount shows -- */
	bool read_only;
	bool allow_other; /* mount.c adds default_permissions */
	uid_t uid;        /* the mounting user's */
	gid_t gid;
	mode_t umask; /* 022 */
	bool noxattr;
	bool nopassthrough;
	int64_t poll_ms; /* age at which a branch's head is asked for again: 30 s; 0: each time it is used */

	/* -- when and what is published -- */
	enum opts_commit commit;
	int64_t commit_delay_ms;   /* quiet period: 2 s */
	int64_t commit_interval_ms; /* instead of the quiet period; 0: none */
	int64_t open_wait_ms;      /* how long a writer holds a quiet commit back: 60 s */
	enum opts_on_conflict on_conflict;
	enum opts_create create;   /* what mkdir of user/new makes */
	enum opts_sdk space_sdk;   /* of a space */
	unsigned commit_files;     /* of one call of the Hub; more become several: 25,000 */
	bool pr; /* commits to main become a pull request */
	enum opts_fsync fsync;
	int64_t fsync_timeout_ms;  /* without progress: 120 s */
	int64_t umount_timeout_ms; /* 30 s */
	char **ignore; /* changes for ignore_new, in order */
	size_t n_ignore;

	/* -- where things are -- */
	char *cache_dir;     /* $XDG_CACHE_HOME/hugfs */
	char *staging_dir;   /* $XDG_STATE_HOME/hugfs */
	uint64_t cache_size; /* 50 GiB */
	char *endpoint;      /* NULL: auth.c looks into the environment */
	char *token_path;    /* NULL: the same */
	char *ca_file;       /* NULL: the system's */
	bool offline;

	/* -- how it runs -- */
	uint64_t inflight; /* cap of bytes in flight: 256 MiB */
	unsigned workers;  /* transfer threads: 8 */
	char *log;         /* for log_set_levels; checked */
	bool foreground;   /* -f */
	bool debug;        /* -d: libfuse's own, implies -f */

	unsigned kernel; /* mount flags for libfuse: see opts_kernel */
};

/* Defaults, then the environment. 0, -ENOMEM, or -EINVAL with a sentence in *ret_why (caller frees). `o` is
 * to be given to opts_fini in either case. */
int opts_init(struct opts *o, char **ret_why) MUST_USE;
void opts_fini(struct opts *o);

/* The text of one -o: options with commas between them; a backslash takes the meaning from the character
 * after it. The options that mount(8) and fstab pass are taken too. What stood before the mistake is in force
 * already. -EINVAL with a sentence that names the option, what is wrong and what is allowed; -ENOMEM. */
int opts_parse_o(struct opts *o, const char *text, char **ret_why) MUST_USE;
/* One option; value NULL: without "=". */
int opts_set(struct opts *o, const char *name, const char *value, char **ret_why) MUST_USE;
/* The option behind a letter of the command line ('f', 'd'); NULL: there is none. */
const char *opts_by_letter(char letter);

/* What libfuse is to be told of mount(8)'s own options: "noexec,noatime"; "" for nothing. Neither suid, dev
 * nor sync is ever in it. */
#define OPTS_KERNEL_MAX 64
void opts_kernel(const struct opts *o, char out[OPTS_KERNEL_MAX]);

/* The option part of --help. */
void opts_print_help(FILE *to);

/* The table's rows, for tests, manual and completion. */
struct opts_row {
	const char *name;
	char letter;       /* also a switch of the command, 0: none */
	const char *arg;   /* what the value is called, NULL: takes none; "a|b" are the only values */
	const char *env;   /* its variable, NULL: none */
	const char *preset; /* the default in words, NULL: off */
	const char *help;
};
size_t opts_count(void);
const struct opts_row *opts_row(size_t i); /* static; NULL from opts_count() on */

#endif
