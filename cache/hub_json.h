/* hub_json: JSON texts of the Hub <-> structs. Pure: no I/O, no state, no locks, any thread. The only user of
 * cJSON.
 *
 * Every reader takes (text, length), which may come from anybody: size, depth and the number of values are
 * capped before anything is built, unknown fields are ignored, a field of the wrong shape refuses the whole
 * text. They return 0, -EBADMSG (no JSON, wrong shape, over a cap) or -ENOMEM, and leave *ret untouched on
 * failure. */
#ifndef HUGFS_HUB_JSON_H
#define HUGFS_HUB_JSON_H

#include "hub.h"

/* -- reading -- */

int hub_json_whoami(const char *text, size_t len, struct hub_whoami *ret) MUST_USE;
/* Repository information (hub-api.md 3.3); `type` is not told by the text. An id of one word (an old
 * canonical model) has an empty namespace. */
int hub_json_repo(const char *text, size_t len, enum repo_type type, struct hub_repo *ret) MUST_USE;
int hub_json_refs(const char *text, size_t len, struct hub_refs *ret) MUST_USE;
/* One page, appended to what *io holds, which stays valid (and unchanged) on failure. */
int hub_json_commits(const char *text, size_t len, struct hub_commits *io) MUST_USE;
/* One page of a tree, or an answer of paths-info, appended to *io likewise. Entries whose path must not be
 * served (repo_path_valid) are left out and counted in *io_skipped. */
int hub_json_entries(const char *text, size_t len, struct hub_entries *io, size_t *io_skipped) MUST_USE;
/* The answers for all of `files`; a path that the text does not hold is a wrong shape. ret_head: 41 bytes,
 * "" when it was not told. */
int hub_json_preupload(const char *text, size_t len, struct hub_pre_file *files, size_t n,
                       char ret_head[41]) MUST_USE;
int hub_json_commit_result(const char *text, size_t len, struct hub_commit_result *ret) MUST_USE;
/* A positive whole number of the outermost object. */
int hub_json_number(const char *text, size_t len, const char *name, unsigned *ret) MUST_USE;
int hub_json_pr(const char *text, size_t len, struct hub_pr *ret) MUST_USE;
/* The newest draft of that title in a list of discussions; *ret 0: none. */
int hub_json_find_draft(const char *text, size_t len, const char *title, unsigned *ret) MUST_USE;
/* The message of an error body (hub-api.md 7.1), or a line of plain text; "" when it says nothing usable.
 * Control characters become blanks. */
void hub_json_error(const char *text, size_t len, char *ret, size_t ret_size);

/* One object of an LFS batch answer (hub-api.md 6.2). */
struct hub_json_lfs {
	struct blob_key key;
	bool upload;          /* bytes are wanted; false: the repository has them */
	int error_code;       /* 0: none */
	char *error;          /* its message */
	char *href;           /* basic: PUT target; multipart: completion URL */
	/* "Name: value" for the PUT, NULL-terminated; NULL: none. Never Authorization */
	char **headers;
	uint64_t chunk_size;  /* 0: basic */
	char **parts;         /* multipart: n_parts URLs in the order of their numbers 1.. */
	size_t n_parts;
	char *verify_href;    /* NULL: no verify */
};
struct hub_json_lfs_batch {
	struct hub_json_lfs *objects;
	size_t n;
};
void hub_json_lfs_batch_fini(struct hub_json_lfs_batch *b);
int hub_json_lfs_batch(const char *text, size_t len, struct hub_json_lfs_batch *ret) MUST_USE;

/* Length of the UTF-8 sequence at `p`, of which `left` > 0 bytes are there; 0 when there is none (overlong
 * forms and surrogates are none). */
size_t hub_json_utf8(const unsigned char *p, size_t left);

/* -- writing (hub_json_write.c) --
 *
 * Appends one JSON value to a buffer:
 *
 *     struct hub_json_writer w;
 *     hub_json_write_init(&w, &buf);
 *     hub_json_write_object(&w, NULL);
 *     hub_json_write_string(&w, "name", name);
 *     hub_json_write_array(&w, "sizes");
 *     hub_json_write_number(&w, NULL, 3);
 *     hub_json_write_end(&w);
 *     hub_json_write_end(&w);
 *     r = hub_json_write_done(&w);
 *
 * `key` is NULL inside an array and for the outermost value. Failures are kept and told once, by _done. */
#define HUB_JSON_WRITE_DEPTH 32
struct hub_json_writer {
	struct buf *out;
	int error;
	unsigned depth;
	bool any[HUB_JSON_WRITE_DEPTH + 1];       /* the container has a member: a comma is due */
	char closing[HUB_JSON_WRITE_DEPTH + 1];   /* '}' or ']' */
};
void hub_json_write_init(struct hub_json_writer *w, struct buf *out);
void hub_json_write_object(struct hub_json_writer *w, const char *key);
void hub_json_write_array(struct hub_json_writer *w, const char *key);
void hub_json_write_end(struct hub_json_writer *w);
/* NULL writes null. Bytes that are not UTF-8 become U+FFFD: for people and logs. */
void hub_json_write_string(struct hub_json_writer *w, const char *key, const char *text);
/* The same for names that must arrive as they are: text that is not UTF-8 fails with -EILSEQ. */
void hub_json_write_exact(struct hub_json_writer *w, const char *key, const char *text);
void hub_json_write_number(struct hub_json_writer *w, const char *key, int64_t number);
void hub_json_write_double(struct hub_json_writer *w, const char *key, double number); /* not finite: null */
void hub_json_write_bool(struct hub_json_writer *w, const char *key, bool value);
/* A string value of base64 (standard alphabet, padded) of `n` bytes. */
void hub_json_write_base64(struct hub_json_writer *w, const char *key, const void *data, size_t n);
/* 0 when every container was closed and all was written; -EILSEQ, -ENOMEM or -EFBIG (the buffer's cap). */
int hub_json_write_done(struct hub_json_writer *w) MUST_USE;

/* Base64 of `n` bytes into `out` (4 * ((n + 2) / 3) characters, no NUL); returns the characters. */
size_t hub_json_base64(const void *data, size_t n, char *out);

#endif
