/* repo: the hf:// grammar, repository ids, revisions, escaping.
 *
 * Not for asking the Hub whether something exists: what is said here is what the spelling alone says. Pure:
 * any thread, no I/O, no state. The grammar is hub-api.md 2.1 to 2.5. Where the official client would split
 * `@refs/pr/10x` into a revision and the path `x`, and would take a leading slash for nothing, this
 * refuses. */
#define LOG_MODULE "repo"

#include "repo.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

#define REV_MAX 255      /* bytes; git stores a branch as a path, github.com allows 244 */
#define SOURCE_MAX 8192  /* bytes of a SOURCE: names, revision and path, each byte escaped */

const char *repo_type_api(enum repo_type t)
{
	static const char *const names[] = {"models", "datasets", "spaces"};

	return names[t];
}

const char *repo_type_prefix(enum repo_type t)
{
	static const char *const names[] = {"", "datasets/", "spaces/"};

	return names[t];
}

const char *repo_type_name(enum repo_type t)
{
	static const char *const names[] = {"model", "dataset", "space"};

	return names[t];
}

/* ASCII only, whatever the locale. */
static bool is_alnum(char c)
{
	return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool ends_with(const char *text, size_t len, const char *end)
{
	size_t n = strlen(end);

	return len >= n && memcmp(text + len - n, end, n) == 0;
}

bool repo_name_valid(const char *name)
{
	size_t len = strnlen(name, REPO_NAME_MAX + 1);

	if (len == 0 || len > REPO_NAME_MAX)
		return false;
	for (size_t i = 0; i < len; i++) {
		if (!is_alnum(name[i]) && !strchr("._-", name[i]))
			return false;
	}
	if (strchr("-.", name[0]) || strchr("-.", name[len - 1]))
		return false;
	return !strstr(name, "--") && !strstr(name, "..") && !ends_with(name, len, ".git");
}

bool repo_equal(const struct repo_id *a, const struct repo_id *b)
{
	return a->type == b->type && strcmp(a->ns, b->ns) == 0 && strcmp(a->name, b->name) == 0;
}

void repo_text(const struct repo_id *id, char out[REPO_TEXT_MAX])
{
	snprintf(out, REPO_TEXT_MAX, "%s%s/%s", repo_type_prefix(id->type), id->ns, id->name);
}

/* -- revisions -- */

bool repo_is_commit(const char *text)
{
	size_t n = strspn(text, "0123456789abcdef");

	return n == 40 && !text[n];
}

/* Length of the leading refs/pr/N or refs/convert/NAME, 0 if there is none. */
static size_t special_ref_len(const char *text)
{
	static const char pr[] = "refs/pr/", convert[] = "refs/convert/";
	size_t n = 0, head;

	if (strncmp(text, pr, sizeof(pr) - 1) == 0) {
		head = sizeof(pr) - 1;
		n = strspn(text + head, "0123456789");
	} else if (strncmp(text, convert, sizeof(convert) - 1) == 0) {
		head = sizeof(convert) - 1;
		/* The official pattern is [\w.-]+, and \w holds every letter of Unicode. */
		while (is_alnum(text[head + n]) || (text[head + n] && strchr("_.-", text[head + n])) ||
		       (unsigned char)text[head + n] >= 0x80)
			n++;
	} else {
		return 0;
	}
	return n ? head + n : 0;
}

enum repo_rev_kind repo_rev_kind(const char *rev)
{
	size_t n = special_ref_len(rev);

	if (repo_is_commit(rev))
		return REPO_REV_COMMIT;
	if (n == 0 || rev[n])
		return REPO_REV_NAME;
	return rev[5] == 'p' ? REPO_REV_PR : REPO_REV_CONVERT;
}

bool repo_rev_valid(const char *rev)
{
	size_t len = strnlen(rev, REV_MAX + 1);

	if (len == 0 || len > REV_MAX || rev[0] == '-' || rev[len - 1] == '.' || strcmp(rev, "@") == 0)
		return false;
	for (size_t i = 0; i < len; i++) {
		if ((unsigned char)rev[i] <= ' ' || rev[i] == 0x7f || strchr("~^:?*[\\", rev[i]))
			return false;
	}
	if (strstr(rev, "..") || strstr(rev, "@{"))
		return false;
	for (const char *part = rev;; part++) {
		size_t n = strcspn(part, "/");

		if (n == 0 || part[0] == '.' || ends_with(part, n, ".lock"))
			return false;
		part += n;
		if (!*part)
			return true;
	}
}

/* -- escaping -- */

static char *escape(const char *text, bool keep_slash)
{
	static const char digits[] = "0123456789ABCDEF";
	size_t len = strlen(text);
	char *out, *o;

	if (len > (SIZE_MAX - 1) / 3)
		return NULL;
	out = o = malloc(3 * len + 1);
	if (!out)
		return NULL;
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)text[i];

		if (is_alnum((char)c) || strchr("-._~", c) || (c == '/' && keep_slash)) {
			*o++ = (char)c;
		} else {
			*o++ = '%';
			*o++ = digits[c >> 4];
			*o++ = digits[c & 15];
		}
	}
	*o = '\0';
	return out;
}

char *repo_escape_rev(const char *rev)
{
	return escape(rev, false);
}

char *repo_escape_path(const char *path)
{
	return escape(path, true);
}

/* Of the first `len` bytes. -EINVAL: a bad sequence, or an escaped NUL. */
static int unescape(const char *text, size_t len, char **ret)
{
	AUTO_FREE char *out = malloc(len + 1);
	size_t n = 0;

	if (!out)
		return -ENOMEM;
	for (size_t i = 0; i < len; i++) {
		uint8_t byte = (uint8_t)text[i];

		if (byte == '%') {
			char hex[3] = {0};

			if (len - i < 3)
				return -EINVAL;
			memcpy(hex, text + i + 1, 2);
			if (util_unhex(hex, &byte, 1) < 0 || byte == 0)
				return -EINVAL;
			i += 2;
		}
		out[n++] = (char)byte;
	}
	out[n] = '\0';
	*ret = STEAL(out);
	return 0;
}

char *repo_unescape(const char *text)
{
	char *out;

	return unescape(text, strlen(text), &out) < 0 ? NULL : out;
}

bool repo_path_valid(const char *path)
{
	if (strnlen(path, PATH_MAX) >= PATH_MAX)
		return false;
	for (const char *part = path;; part++) {
		size_t n = strcspn(part, "/");

		if (n == 0 || n > NAME_MAX || (n <= 2 && memcmp(part, "..", n) == 0))
			return false;
		part += n;
		if (!*part)
			return true;
	}
}

/* -- SOURCE -- */

static const char why_bare[] =
	"a source starts with hf:// or holds a slash, such as user/repo; for a namespace "
	"alone write hf://user/";
static const char why_local[] =
	"this looks like a local path; a source is hf://user/repo, with the mount point after it";
static const char why_url[] =
	"this is not a web address; write hf://user/repo, with datasets/ or spaces/ before it where that is "
	"its type";
static const char why_scheme[] = "a source starts with hf:// (two slashes)";
static const char why_plural[] =
	"the type is written in the plural: datasets/ or spaces/ (models have none)";
static const char why_type[] = "hugfs mounts models, datasets and spaces only";
static const char why_name[] =
	"namespaces and repositories have 1 to 96 letters, digits, and . _ - in their names, no -- or .., "
	"no - or . at an end, no .git at the end";
static const char why_early_at[] = "@REVISION goes right after namespace/name";
static const char why_empty_rev[] =
	"a revision is missing after @; leave the @ out to see all revisions";
static const char why_rev[] =
	"no revision can have this name; a slash in it is written %2F, a percent sign %25";
static const char why_refs[] =
	"a revision that starts with refs/ is refs/pr/NUMBER or refs/convert/NAME; write the slashes of "
	"others as %2F";
static const char why_path[] =
	"the folder after the repository has an empty part, . or .. in it, or is too long";
static const char why_long[] = "this source is too long";
static const char why_memory[] = "out of memory";

static int refuse(const char **ret_why, const char *why)
{
	*ret_why = why;
	return -EINVAL;
}

/* A leading type word, with or without a slash after it. `*text` moves behind it. */
static int parse_type(const char **text, struct repo_source *s, bool *ret_named, const char **ret_why)
{
	static const struct {
		const char *word;
		int type; /* -1: not in the plural; -2: not for us */
	} words[] = {
		{"models", REPO_MODEL}, {"datasets", REPO_DATASET}, {"spaces", REPO_SPACE},
		{"model", -1},          {"dataset", -1},            {"space", -1},
		{"kernels", -2},        {"buckets", -2},            {"kernel", -2},
		{"bucket", -2},
	};
	size_t n = strcspn(*text, "/");

	*ret_named = false;
	for (size_t i = 0; i < ARRAY_LEN(words); i++) {
		if (strlen(words[i].word) != n || memcmp(words[i].word, *text, n) != 0)
			continue;
		if (words[i].type < 0)
			return refuse(ret_why, words[i].type == -1 ? why_plural : why_type);
		s->id.type = (enum repo_type)words[i].type;
		*ret_named = true;
		*text += n + ((*text)[n] == '/');
		return 0;
	}
	return 0;
}

static int parse_name(const char *text, size_t len, char out[REPO_NAME_MAX + 1], const char **ret_why)
{
	char name[REPO_NAME_MAX + 1];

	if (len > REPO_NAME_MAX)
		return refuse(ret_why, why_name);
	memcpy(name, text, len);
	name[len] = '\0';
	if (!repo_name_valid(name))
		return refuse(ret_why, memchr(text, '@', len) ? why_early_at : why_name);
	memcpy(out, name, len + 1);
	return 0;
}

/* What follows `@`: `*text` moves behind it. */
static int parse_rev(const char **text, char **ret_rev, const char **ret_why)
{
	size_t n = special_ref_len(*text);
	AUTO_FREE char *rev = NULL;
	int rc;

	if (n == 0 || ((*text)[n] && (*text)[n] != '/')) {
		if (strncmp(*text, "refs/", 5) == 0)
			return refuse(ret_why, why_refs);
		n = strcspn(*text, "/");
	}
	if (n == 0)
		return refuse(ret_why, why_empty_rev);
	rc = unescape(*text, n, &rev);
	if (rc == -ENOMEM) {
		*ret_why = why_memory;
		return rc;
	}
	if (rc < 0 || !repo_rev_valid(rev))
		return refuse(ret_why, why_rev);
	*text += n;
	*ret_rev = STEAL(rev);
	return 0;
}

/* Behind namespace/name: [@rev][/path], or a lone `@` as the whole-Hub tree writes "all revisions". */
static int parse_tail(const char *text, struct repo_source *s, const char **ret_why)
{
	AUTO_FREE char *path = NULL;
	size_t len;
	int rc;

	if (*text == '@' && text[1 + strspn(text + 1, "/")]) {
		text++;
		rc = parse_rev(&text, &s->rev, ret_why);
		if (rc < 0)
			return rc;
	} else if (*text == '@') {
		text++;
	}
	text += *text == '/';
	len = strlen(text);
	while (len && text[len - 1] == '/')
		len--;
	path = strndup(text, len);
	if (!path) {
		*ret_why = why_memory;
		return -ENOMEM;
	}
	if (len && !repo_path_valid(path))
		return refuse(ret_why, why_path);
	s->all_revisions = !s->rev && len == 0;
	s->path = STEAL(path);
	return 0;
}

/* Behind hf://. */
static int parse_body(const char *text, struct repo_source *s, const char **ret_why)
{
	bool type_named;
	size_t n;
	int rc;

	if (!*text) {
		s->kind = REPO_SOURCE_HUB;
		return 0;
	}
	rc = parse_type(&text, s, &type_named, ret_why);
	if (rc < 0)
		return rc;
	if (type_named && !*text) {
		s->kind = REPO_SOURCE_TYPE;
		return 0;
	}
	n = strcspn(text, "/");
	rc = parse_name(text, n, s->id.ns, ret_why);
	if (rc < 0)
		return rc;
	if (!text[n + strspn(text + n, "/")]) {
		/* Only models ever had ids of one word that nobody may tell from a namespace. */
		s->kind = text[n] || s->id.type != REPO_MODEL ? REPO_SOURCE_NAMESPACE : REPO_SOURCE_WORD;
		return 0;
	}
	text += n + 1;
	n = strcspn(text, "/@");
	rc = parse_name(text, n, s->id.name, ret_why);
	if (rc < 0)
		return rc;
	s->kind = REPO_SOURCE_REPO;
	return parse_tail(text + n, s, ret_why);
}

int repo_parse_source(const char *text, struct repo_source *ret, const char **ret_why)
{
	CLEANUP(repo_source_fini) struct repo_source s = {0};
	int rc;

	if (strnlen(text, SOURCE_MAX + 1) > SOURCE_MAX)
		return refuse(ret_why, why_long);
	if (strncmp(text, "hf://", 5) == 0) {
		rc = parse_body(text + 5, &s, ret_why);
	} else if (strncasecmp(text, "hf:", 3) == 0) {
		return refuse(ret_why, why_scheme);
	} else if (strstr(text, "://")) {
		return refuse(ret_why, why_url);
	} else if (!strchr(text, '/')) {
		return refuse(ret_why, why_bare);
	} else if (strchr("/.~", text[0])) {
		return refuse(ret_why, why_local);
	} else {
		rc = parse_body(text, &s, ret_why);
	}
	if (rc < 0)
		return rc;
	*ret = STEAL(s);
	return 0;
}

void repo_source_fini(struct repo_source *s)
{
	free(s->rev);
	free(s->path);
	*s = (struct repo_source){0};
}

int repo_parse_entry(const char *entry, char name[REPO_NAME_MAX + 1], char **ret_rev)
{
	size_t n = strcspn(entry, "@");
	AUTO_FREE char *rev = NULL;
	char text[REPO_NAME_MAX + 1];
	const char *why;
	int rc;

	if (strchr(entry, '/'))
		return -EINVAL;
	rc = parse_name(entry, n, text, &why);
	if (rc < 0)
		return rc;
	if (entry[n]) {
		rc = unescape(entry + n + 1, strlen(entry + n + 1), &rev);
		if (rc < 0)
			return rc;
		if (*rev && !repo_rev_valid(rev))
			return -EINVAL;
	}
	memcpy(name, text, n + 1);
	*ret_rev = STEAL(rev);
	return 0;
}
