/* ignore: which names are never published.
 *
 * Not for what the branch holds, and not for .gitignore. Pure: any thread, no lock, immutable once made.
 * Names are compared byte by byte: the program never calls setlocale(3), so fnmatch(3) knows no
 * characters. */
#define LOG_MODULE "ignore"

#include "ignore.h"

#include <errno.h>
#include <fnmatch.h>
#include <limits.h>
#include <string.h>

#define PATTERNS_MAX 1024 /* each costs one fnmatch for a name that is looked up */

struct ignore {
	char **patterns; /* as written, with their final slash */
	size_t n;
};

static const char *const builtin[] = {
	".tmp*",         "*~",           ".#*",         "#*#",
	".*.sw?",        "4913",         ".goutputstream-*", ".~*",
	"*.tmp",         "*.part",       "*.crdownload", "*.incomplete",
	".nfs*",         ".fuse_hidden*", ".DS_Store",   "._*",
	"Thumbs.db",     "desktop.ini",  ".Trash-*/",   ".ipynb_checkpoints/",
	"__pycache__/",  ".git/",        ".cache/",
};

static int refuse(char **ret_why, const char *change, const char *why)
{
	char *text = util_printf("ignore=%s: %s", change, why);

	if (!text)
		return -ENOMEM;
	*ret_why = text;
	return -EINVAL;
}

static int add(struct ignore *ig, const char *pattern)
{
	char **more = reallocarray(ig->patterns, ig->n + 1, sizeof(*more));

	if (!more)
		return -ENOMEM;
	ig->patterns = more;
	more[ig->n] = strdup(pattern);
	if (!more[ig->n])
		return -ENOMEM;
	ig->n++;
	return 0;
}

/* Index of the pattern, n if it is not there. */
static size_t find(const struct ignore *ig, const char *pattern)
{
	size_t i = 0;

	while (i < ig->n && strcmp(ig->patterns[i], pattern) != 0)
		i++;
	return i;
}

static int change(struct ignore *ig, const char *text, char **ret_why)
{
	bool off = text[0] == '!';
	const char *pattern = text + off;
	size_t len = strnlen(pattern, NAME_MAX + 2);
	const char *slash = strchr(pattern, '/');
	size_t at;

	if (len == 0 || len > NAME_MAX + 1)
		return refuse(ret_why, text, "a pattern has 1 to 255 bytes");
	if (slash && (slash == pattern || slash[1]))
		return refuse(ret_why, text,
		              "a pattern is for one name: a slash may only stand at its end (folders only)");
	at = find(ig, pattern);
	if (off && at == ig->n)
		return refuse(ret_why, text, "there is no such pattern to take off");
	if (off) {
		free(ig->patterns[at]);
		ig->n--;
		memmove(ig->patterns + at, ig->patterns + at + 1, (ig->n - at) * sizeof(*ig->patterns));
		return 0;
	}
	if (at < ig->n)
		return 0;
	if (ig->n >= PATTERNS_MAX)
		return refuse(ret_why, text, "too many patterns");
	return add(ig, pattern);
}

int ignore_new(const char *const *changes, size_t n, struct ignore **ret, char **ret_why)
{
	CLEANUP(ignore_freep) struct ignore *ig = calloc(1, sizeof(*ig));
	int rc = 0;

	if (!ig)
		return -ENOMEM;
	for (size_t i = 0; i < ARRAY_LEN(builtin) && rc == 0; i++)
		rc = add(ig, builtin[i]);
	for (size_t i = 0; i < n && rc == 0; i++)
		rc = change(ig, changes[i], ret_why);
	if (rc < 0)
		return rc;
	*ret = STEAL(ig);
	return 0;
}

void ignore_free(struct ignore *ig)
{
	if (!ig)
		return;
	for (size_t i = 0; i < ig->n; i++)
		free(ig->patterns[i]);
	free(ig->patterns);
	free(ig);
}

void ignore_freep(struct ignore **ig)
{
	ignore_free(*ig);
}

bool ignore_match_name(const struct ignore *ig, const char *name, bool is_dir)
{
	char bare[NAME_MAX + 2];

	for (size_t i = 0; i < ig->n; i++) {
		const char *pattern = ig->patterns[i];
		size_t len = strlen(pattern);

		if (pattern[len - 1] == '/') {
			if (!is_dir)
				continue;
			memcpy(bare, pattern, len - 1);
			bare[len - 1] = '\0';
			pattern = bare;
		}
		if (fnmatch(pattern, name, 0) == 0)
			return true;
	}
	return false;
}

bool ignore_match(const struct ignore *ig, const char *path, bool is_dir)
{
	char name[NAME_MAX + 1];

	for (const char *part = path; *part; part++) {
		size_t n = strcspn(part, "/");

		if (n <= NAME_MAX) { /* a longer one cannot be made, and no pattern is for it */
			memcpy(name, part, n);
			name[n] = '\0';
			if (n && ignore_match_name(ig, name, part[n] == '/' || is_dir))
				return true;
		}
		part += n;
		if (!*part)
			break;
	}
	return false;
}

const char *ignore_pattern(const struct ignore *ig, size_t i)
{
	return i < ig->n ? ig->patterns[i] : NULL;
}
