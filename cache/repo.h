/* repo: the hf:// grammar, repository ids, revisions, escaping. Pure: no I/O, no state. */
#ifndef HUGFS_REPO_H
#define HUGFS_REPO_H

#include "util.h"

enum repo_type { REPO_MODEL, REPO_DATASET, REPO_SPACE };

#define REPO_NAME_MAX 96 /* hub-api.md 2.1: namespace and name 1..96 characters each */

/* A repository's canonical id. Plain data, copied by value. */
struct repo_id {
	enum repo_type type;
	char ns[REPO_NAME_MAX + 1];
	char name[REPO_NAME_MAX + 1];
};

const char *repo_type_api(enum repo_type t);    /* "models" "datasets" "spaces": {T} of hub-api.md */
const char *repo_type_prefix(enum repo_type t); /* "" "datasets/" "spaces/": {pre} */
const char *repo_type_name(enum repo_type t);   /* "model" "dataset" "space" */

/* May this be a namespace or a repository's name? (hub-api.md 2.1.) Names that may not cost no request. */
bool repo_name_valid(const char *name);
bool repo_equal(const struct repo_id *a, const struct repo_id *b);
/* "datasets/ns/name" into out. */
#define REPO_TEXT_MAX (9 + 2 * REPO_NAME_MAX + 2)
void repo_text(const struct repo_id *id, char out[REPO_TEXT_MAX]);

/* What a SOURCE names. */
enum repo_source_kind {
	REPO_SOURCE_HUB,       /* hf:// */
	REPO_SOURCE_TYPE,      /* hf://datasets */
	REPO_SOURCE_NAMESPACE, /* hf://word/ , hf://datasets/word */
	REPO_SOURCE_WORD,      /* hf://word: an old one-word model if the Hub says so, else a namespace */
	REPO_SOURCE_REPO,      /* hf://ns/name[@rev][/path] */
};
struct repo_source {
	enum repo_source_kind kind;
	struct repo_id id;  /* type; ns; name, each as far as it was given */
	bool all_revisions; /* neither @rev nor path: the repository's root, whose folders are revisions */
	char *rev;          /* decoded revision; NULL without @: with a path, the default branch is meant */
	char *path;         /* folder inside the revision, no slash at either end; "" for its root */
};
/* Parses the hf:// grammar of hub-api.md 2.3 (hf:// may be left out where there is a slash).
 * -EINVAL (or -ENOMEM) with a sentence in *ret_why (static text) that names the mistake and the cure. */
int repo_parse_source(const char *text, struct repo_source *ret, const char **ret_why) MUST_USE;
void repo_source_fini(struct repo_source *s);

/* "repo", "repo@rev" or "repo@" as a name in a namespace's folder of the whole-Hub tree (design.md 1).
 * rev: NULL without @, "" for `repo@`. A revision there spells its slashes %2F. -EINVAL: no such form. */
int repo_parse_entry(const char *entry, char name[REPO_NAME_MAX + 1], char **ret_rev) MUST_USE;

enum repo_rev_kind { REPO_REV_NAME, REPO_REV_COMMIT, REPO_REV_PR, REPO_REV_CONVERT };
/* What the spelling of a revision says: 40 hex is a commit, refs/pr/N a pull request, refs/convert/NAME;
 * else a branch or a tag, which only the Hub can tell. */
enum repo_rev_kind repo_rev_kind(const char *rev);
/* Could this be a revision at all? (git check-ref-format, shortened.) */
bool repo_rev_valid(const char *rev);
bool repo_is_commit(const char *text); /* 40 lower-case hex digits */

/* Percent-encoding of hub-api.md 2.5. Caller frees; NULL: no memory. */
char *repo_escape_rev(const char *rev) MUST_USE;   /* everything, `/` too */
char *repo_escape_path(const char *path) MUST_USE; /* per segment, `/` stays */
char *repo_unescape(const char *text) MUST_USE;    /* NULL also for a bad % sequence */

/* May a path in a repository be served? Not with `.`, `..` or an empty segment (so the root's "" is none),
 * nor with a name above 255 or a whole above 4095 bytes, which no Linux program could use. */
bool repo_path_valid(const char *path);

#endif
