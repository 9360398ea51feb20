/* ignore: which names are never published (design.md 3.4). Pure: no I/O, any thread once it is made.
 *
 * It knows patterns only. That a name which the branch already holds is ordinary is the caller's business:
 * ask the tree first. */
#ifndef HUGFS_IGNORE_H
#define HUGFS_IGNORE_H

#include "util.h"

struct ignore;

/* The built-in patterns, changed in this order by `changes` (the option ignore=): "PATTERN" adds one,
 * "!PATTERN" takes that one off again. A pattern is a shell pattern for one name, without a slash; a slash at
 * its end makes it match folders only. -EINVAL (a sentence in *ret_why, caller frees): no such form, nothing
 * there to take off, too many; -ENOMEM. */
int ignore_new(const char *const *changes, size_t n, struct ignore **ret, char **ret_why) MUST_USE;
void ignore_free(struct ignore *ig);
void ignore_freep(struct ignore **ig);

/* Is `path` (from the branch's root, no slash at either end) or a folder above it ignored? What lies below an
 * ignored folder is. "" never is. */
bool ignore_match(const struct ignore *ig, const char *path, bool is_dir);
/* The same for one name whose folder is known not to be ignored. */
bool ignore_match_name(const struct ignore *ig, const char *name, bool is_dir);

/* The patterns in force, for `status` and tests: NULL after the last. */
const char *ignore_pattern(const struct ignore *ig, size_t i);

#endif
