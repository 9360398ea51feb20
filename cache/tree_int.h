/* tree_int: what the files of the tree share with each other, and with nobody else. tree.c: memory,
 * questions, folders; tree_refs.c: repositories, revisions, heads; tree_saved.c: the forms of a listing,
 * pure. The states are told at the head of tree.c. */
#ifndef HUGFS_TREE_INT_H
#define HUGFS_TREE_INT_H

#include "lock.h"
#include "log.h"
#include "tree.h"

#define TREE_DEPTH_MAX 512 /* folders in folders: git itself stops before */
#define BUCKETS (1u << 15)
#define ADOPTIONS 64 /* commits of ours that a refs question under way may not know: it takes seconds */

/* What is known about a thing: one of these. */
struct answer {
	struct tree_listing *listing; /* referenced */
	struct tree_refs *refs;       /* referenced */
	struct tree_repo repo;
	int64_t date_s;     /* of a commit */
	bool absent;        /* the Hub said that there is no such repository */
	int64_t checked_ms; /* of refs and repositories: the Hub said so then; 0: never to this process */
};

struct item {
	struct item *hash_next;
	struct item *lru_prev, *lru_next; /* oldest first */
	size_t weight;                    /* entries */
	struct answer a;
	int64_t failed_ms; /* the Hub could not be reached then; 0: it could */
	uint64_t number;   /* of publications, counted */
	char key[];
};

/* Something that is being asked; those who want to know the same wait for it. */
struct question {
	struct question *next;
	unsigned refs;
	bool done;
	int result;
	struct hub_error err;
	struct answer answer;
	char key[];
};

struct adoption {
	char *repo, *rev;
	char commit[41];
	int64_t ms;
};

struct tree {
	struct hub *hub;
	struct index *ix;
	int64_t poll_ms;
	size_t max_entries;
	bool offline;

	struct lock lock;
	struct cond answered;
	/* -- guarded by lock -- */
	struct item *bucket[BUCKETS];
	struct item *lru_first, *lru_last;
	size_t weight;
	uint64_t published;
	struct question *questions;
	struct adoption adoptions[ADOPTIONS];
	unsigned next_adoption;
	int64_t warned_ms;
};

/* -- tree.c -- */

void tree_answer_fini(struct answer *a);
#define AUTO_ANSWER CLEANUP(tree_answer_fini) struct answer
/* References go along; what `to` had is put back. */
void tree_answer_copy(struct answer *to, const struct answer *from);
/* An item with a copy of `a`; NULL: no memory. */
struct item *tree_item_new(const char *key, const struct answer *a) MUST_USE;
/* Finds, and makes it the last used. */
struct item *tree_find_locked(struct tree *t, const char *key);
/* Publishes `it`, which is taken, in the place of one with the same key. */
void tree_insert_locked(struct tree *t, struct item *it);
/* Publishes a copy of `a`; without memory it is not published. `only_new`: not in the place of another. */
void tree_publish(struct tree *t, const char *key, const struct answer *a, bool only_new);
/* How often something was published. */
uint64_t tree_published(struct tree *t);
/* Does memory have an answer, however old, that may go on serving? */
bool tree_is_known(struct tree *t, const char *key);
/* What memory has. True: it is no older than poll_ms, or the Hub was out of reach since. */
bool tree_look(struct tree *t, const char *key, struct answer *ret, bool *ret_any);

/* Asks the Hub, saves and publishes what it said, and answers it. */
typedef int (*tree_ask_fn)(struct tree *t, void *arg, struct answer *ret, struct hub_error *err);
/* Runs `fn`, or waits for who asks the same already. `seen`: tree_published() before the caller found that
 * there is no answer. */
int tree_ask(struct tree *t, const char *key, uint64_t seen, tree_ask_fn fn, void *arg, struct answer *ret,
        struct hub_error *err) MUST_USE;
/* Did the Hub not answer, so that what it said last goes on serving? */
bool tree_unreachable(int r);
/* The Hub could not be reached: what is known serves until it is time to try again. */
void tree_note_stale(struct tree *t, const char *key, int r);
/* Writes to the index. */
void tree_save(struct tree *t, const char *key, const void *value, size_t len);
/* "prefix:type/id" or "prefix:type/id:rest". Caller frees; NULL: no memory. */
char *tree_key(const char *prefix, const struct repo_id *id, const char *rest) MUST_USE;

/* -- tree_saved.c -- */

/* The listing of folder `path` ("" is the root) that the Hub's entries make; NULL: no memory. */
struct tree_listing *tree_listing_of_hub(const struct hub_entries *in, const char *path) MUST_USE;
/* To the bytes that are saved in the index, and back; NULL: damaged, or no memory. */
int tree_listing_encode(const struct tree_listing *l, struct buf *out) MUST_USE;
struct tree_listing *tree_listing_decode(const char *text, size_t size) MUST_USE;

#endif
