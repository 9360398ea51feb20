/* hub_json: JSON texts of the Hub <-> structs.
 *
 * Pure: text and length in, struct out. Not for deciding what an answer means (hub.c). Any thread; no state.
 * A text is scanned before cJSON sees it: its size, depth and number of values are capped there, and NUL,
 * which would cut a string short, is refused in both spellings. */
#define LOG_MODULE "hub_json"

#include "hub_json.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include <cjson/cJSON.h>

#define MAX_TEXT ((size_t)64 << 20)
#define MAX_DEPTH 32
#define MAX_VALUES 1000000     /* about 100 bytes each once parsed; a page of a tree has some 15,000 */
#define MAX_NUMBER 9007199254740992.0 /* 2^53: above it a double is no exact integer */
#define MAX_URL 16384
#define MAX_HEADER 4096
#define MAX_PARTS 100000       /* S3 allows 10,000 */

static void json_freep(cJSON **j)
{
	cJSON_Delete(*j);
}
#define AUTO_JSON CLEANUP(json_freep) cJSON

/* Skips the string that opens at text[i]; returns the index behind its closing quote, 0 for a bad one. */
static size_t scan_string(const char *text, size_t len, size_t i)
{
	for (i++; i < len; i++) {
		if (text[i] == '"')
			return i + 1;
		if (text[i] == '\0')
			return 0;
		if (text[i] != '\\')
			continue;
		if (len - i > 5 && memcmp(text + i, "\\u0000", 6) == 0)
			return 0;
		i++;
	}
	return 0;
}

static bool scan_ok(const char *text, size_t len)
{
	size_t depth = 0, values = 0, i = 0;

	if (len > MAX_TEXT)
		return false;
	while (i < len) {
		switch (text[i]) {
		case '"':
			i = scan_string(text, len, i);
			if (i == 0)
				return false;
			continue;
		case '{':
		case '[':
			if (++depth > MAX_DEPTH)
				return false;
			values++;
			break;
		case '}':
		case ']':
			if (depth-- == 0)
				return false;
			break;
		case ',':
			values++;
			break;
		case '\0':
			return false;
		}
		i++;
	}
	return depth == 0 && values <= MAX_VALUES;
}

/* The parsed text, or NULL. */
static cJSON *parse(const char *text, size_t len)
{
	AUTO_JSON *j = NULL;
	const char *end = NULL;

	if (!scan_ok(text, len))
		return NULL;
	j = cJSON_ParseWithLengthOpts(text, len, &end, false);
	if (!j)
		return NULL;
	for (; end < text + len; end++) {
		if (!strchr(" \t\r\n", *end))
			return NULL;
	}
	return STEAL(j);
}

/* The field, or NULL when it is absent or null. */
static const cJSON *field(const cJSON *object, const char *name)
{
	const cJSON *f = cJSON_GetObjectItemCaseSensitive(object, name);

	return f && !cJSON_IsNull(f) ? f : NULL;
}

/* 0 with the string or NULL (absent, null); -EBADMSG for another type. Borrowed. */
static int field_text(const cJSON *object, const char *name, const char **ret)
{
	const cJSON *f = field(object, name);

	if (f && !cJSON_IsString(f))
		return -EBADMSG;
	*ret = f ? f->valuestring : NULL;
	return 0;
}

static int field_bool(const cJSON *object, const char *name, bool *ret)
{
	const cJSON *f = field(object, name);

	if (f && !cJSON_IsBool(f))
		return -EBADMSG;
	*ret = f && cJSON_IsTrue(f);
	return 0;
}

/* An integer from 0 to 2^53, written as a number or as a string of digits. */
static int as_u64(const cJSON *f, uint64_t *ret)
{
	if (cJSON_IsNumber(f)) {
		if (!(f->valuedouble >= 0 && f->valuedouble <= MAX_NUMBER) ||
		    f->valuedouble != floor(f->valuedouble))
			return -EBADMSG;
		*ret = (uint64_t)f->valuedouble;
		return 0;
	}
	if (cJSON_IsString(f)) {
		const char *text = f->valuestring;
		size_t n = strspn(text, "0123456789");

		if (n == 0 || n > 16 || text[n] != '\0')
			return -EBADMSG;
		*ret = strtoull(text, NULL, 10);
		return 0;
	}
	return -EBADMSG;
}

static int field_u64(const cJSON *object, const char *name, uint64_t *ret)
{
	const cJSON *f = field(object, name);

	if (!f || !cJSON_IsNumber(f))
		return -EBADMSG;
	return as_u64(f, ret);
}

/* A commit or "" when it is absent. */
static int field_commit(const cJSON *object, const char *name, char ret[41])
{
	const char *text;
	int r;

	r = field_text(object, name, &text);
	if (r < 0)
		return r;
	if (text && !repo_is_commit(text))
		return -EBADMSG;
	memset(ret, 0, 41);
	if (text)
		memcpy(ret, text, 40);
	return 0;
}

static int dup_text(const char *text, char **ret)
{
	char *copy = strdup(text ? text : "");

	if (!copy)
		return -ENOMEM;
	*ret = copy;
	return 0;
}

/* "2026-01-02T03:04:05[.000](Z|+hh:mm|-hh:mm)" -> unix seconds. */
static int parse_date(const char *text, int64_t *ret)
{
	struct tm tm = {0};
	int at = 0, hours = 0, minutes = 0, sign;

	if (strlen(text) > 40 || sscanf(text, "%4d-%2d-%2dT%2d:%2d:%2d%n", &tm.tm_year, &tm.tm_mon,
	                                &tm.tm_mday, &tm.tm_hour, &tm.tm_min, &tm.tm_sec, &at) != 6)
		return -EBADMSG;
	if (tm.tm_year < 1900 || tm.tm_mon < 1 || tm.tm_mon > 12 || tm.tm_mday < 1 || tm.tm_mday > 31)
		return -EBADMSG;
	tm.tm_year -= 1900;
	tm.tm_mon -= 1;
	if (text[at] == '.')
		at += 1 + (int)strspn(text + at + 1, "0123456789");
	sign = text[at] == '-' ? -1 : 1;
	if (strcmp(text + at, "Z") != 0 &&
	    ((text[at] != '+' && text[at] != '-') || sscanf(text + at + 1, "%2d:%2d", &hours, &minutes) != 2))
		return -EBADMSG;
	*ret = timegm(&tm) - (int64_t)sign * (hours * 3600 + minutes * 60);
	return 0;
}

static int field_date(const cJSON *object, const char *name, int64_t *ret)
{
	const char *text;
	int r;

	r = field_text(object, name, &text);
	if (r < 0)
		return r;
	*ret = 0;
	return text ? parse_date(text, ret) : 0;
}

/* -- who and what -- */

int hub_json_whoami(const char *text, size_t len, struct hub_whoami *ret)
{
	AUTO_JSON *j = parse(text, len);
	CLEANUP(hub_whoami_fini) struct hub_whoami w = {0};
	const cJSON *orgs, *org;
	const char *name;
	size_t n = 0;
	int r;

	if (!cJSON_IsObject(j) || field_text(j, "name", &name) < 0 || !name || !repo_name_valid(name))
		return -EBADMSG;
	r = dup_text(name, &w.name);
	if (r < 0)
		return r;
	orgs = field(j, "orgs");
	if (orgs && !cJSON_IsArray(orgs))
		return -EBADMSG;
	w.orgs = calloc((size_t)cJSON_GetArraySize(orgs) + 1, sizeof(*w.orgs));
	if (!w.orgs)
		return -ENOMEM;
	cJSON_ArrayForEach(org, orgs) {
		if (!cJSON_IsObject(org) || field_text(org, "name", &name) < 0 || !name)
			return -EBADMSG;
		if (!repo_name_valid(name))
			continue;
		r = dup_text(name, &w.orgs[n]);
		if (r < 0)
			return r;
		n++;
	}
	*ret = STEAL(w);
	return 0;
}

static int parse_id(const char *text, enum repo_type type, struct repo_id *ret)
{
	const char *slash = strchr(text, '/');
	const char *name = slash ? slash + 1 : text;
	size_t ns_len = slash ? (size_t)(slash - text) : 0;
	struct repo_id id = {.type = type};

	if (ns_len > REPO_NAME_MAX || strlen(name) > REPO_NAME_MAX)
		return -EBADMSG;
	memcpy(id.ns, text, ns_len);
	memcpy(id.name, name, strlen(name));
	if (!repo_name_valid(id.name) || (slash && !repo_name_valid(id.ns)))
		return -EBADMSG;
	*ret = id;
	return 0;
}

int hub_json_repo(const char *text, size_t len, enum repo_type type, struct hub_repo *ret)
{
	AUTO_JSON *j = parse(text, len);
	struct hub_repo repo = {0};
	const char *id, *internal;
	const cJSON *gated;

	if (!cJSON_IsObject(j) || field_text(j, "id", &id) < 0 || !id || parse_id(id, type, &repo.id) < 0)
		return -EBADMSG;
	if (field_text(j, "_id", &internal) < 0 || (internal && strlen(internal) >= sizeof(repo.internal_id)))
		return -EBADMSG;
	if (internal)
		memcpy(repo.internal_id, internal, strlen(internal));
	for (const char *c = repo.internal_id; *c; c++) {
		if (!isalnum((unsigned char)*c))
			return -EBADMSG;
	}
	if (field_commit(j, "sha", repo.sha) < 0 || field_date(j, "lastModified", &repo.modified_s) < 0 ||
	    field_bool(j, "private", &repo.is_private) < 0 || field_bool(j, "disabled", &repo.disabled) < 0)
		return -EBADMSG;
	gated = field(j, "gated");
	if (gated && !cJSON_IsBool(gated) && !cJSON_IsString(gated))
		return -EBADMSG;
	repo.gated = gated && !cJSON_IsFalse(gated);
	*ret = repo;
	return 0;
}

static int parse_ref(const cJSON *item, enum hub_ref_kind kind, struct hub_refs *io)
{
	struct hub_ref *ref = &io->refs[io->n];
	const char *name;
	int r;

	/* The `name` of a pull request or a conversion is short ("parquet"); its revision is the full ref. */
	r = cJSON_IsObject(item)
	            ? field_text(item, kind == HUB_REF_PR || kind == HUB_REF_CONVERT ? "ref" : "name", &name)
	            : -EBADMSG;
	if (r < 0 || !name || field_commit(item, "targetCommit", ref->commit) < 0 || !ref->commit[0])
		return -EBADMSG;
	if (!repo_rev_valid(name))
		return 0;
	r = dup_text(name, &ref->name);
	if (r < 0)
		return r;
	ref->kind = kind;
	io->n++;
	return 0;
}

int hub_json_refs(const char *text, size_t len, struct hub_refs *ret)
{
	static const struct {
		const char *name;
		enum hub_ref_kind kind;
	} lists[] = {
		{"branches", HUB_REF_BRANCH},
		{"tags", HUB_REF_TAG},
		{"pullRequests", HUB_REF_PR},
		{"converts", HUB_REF_CONVERT},
	};
	AUTO_JSON *j = parse(text, len);
	CLEANUP(hub_refs_fini) struct hub_refs refs = {0};
	size_t total = 0;
	int r;

	if (!cJSON_IsObject(j) || !cJSON_IsArray(field(j, "branches")))
		return -EBADMSG;
	for (size_t i = 0; i < ARRAY_LEN(lists); i++) {
		const cJSON *list = field(j, lists[i].name);

		if (list && !cJSON_IsArray(list))
			return -EBADMSG;
		total += (size_t)cJSON_GetArraySize(list);
	}
	refs.refs = calloc(total + 1, sizeof(*refs.refs));
	if (!refs.refs)
		return -ENOMEM;
	for (size_t i = 0; i < ARRAY_LEN(lists); i++) {
		const cJSON *item;

		cJSON_ArrayForEach(item, field(j, lists[i].name)) {
			r = parse_ref(item, lists[i].kind, &refs);
			if (r < 0)
				return r;
		}
	}
	*ret = STEAL(refs);
	return 0;
}

/* Who cannot be named stays NULL. */
static int first_author(const cJSON *authors, char **ret)
{
	const cJSON *one = cJSON_IsArray(authors) ? cJSON_GetArrayItem(authors, 0) : NULL;
	const char *name = NULL;

	if (!cJSON_IsObject(one) || field_text(one, "user", &name) < 0 || !name)
		return 0;
	return dup_text(name, ret);
}

static int parse_commit(const cJSON *item, struct hub_commit_info *ret)
{
	const char *title, *message;
	int r;

	if (!cJSON_IsObject(item) || field_commit(item, "id", ret->id) < 0 || !ret->id[0] ||
	    field_date(item, "date", &ret->date_s) < 0 || field_text(item, "title", &title) < 0 ||
	    field_text(item, "message", &message) < 0)
		return -EBADMSG;
	r = dup_text(title, &ret->title);
	if (r < 0)
		return r;
	r = dup_text(message, &ret->message);
	if (r == 0)
		r = first_author(field(item, "authors"), &ret->author);
	if (r < 0) {
		util_freep(&ret->title);
		util_freep(&ret->message);
	}
	return r;
}

int hub_json_commits(const char *text, size_t len, struct hub_commits *io)
{
	AUTO_JSON *j = parse(text, len);
	CLEANUP(hub_commits_fini) struct hub_commits page = {0};
	struct hub_commit_info *grown;
	const cJSON *item;
	size_t total;
	int r;

	if (!cJSON_IsArray(j))
		return -EBADMSG;
	total = (size_t)cJSON_GetArraySize(j);
	page.commits = calloc(total + 1, sizeof(*page.commits));
	if (!page.commits)
		return -ENOMEM;
	cJSON_ArrayForEach(item, j) {
		r = parse_commit(item, &page.commits[page.n]);
		if (r < 0)
			return r;
		page.n++;
	}
	grown = realloc(io->commits, (io->n + page.n + 1) * sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	io->commits = grown;
	memcpy(grown + io->n, page.commits, page.n * sizeof(*grown));
	io->n += page.n;
	page.n = 0;
	return 0;
}

/* -- trees -- */

/* 0, or 1 when the entry must be left out. */
static int parse_entry(const cJSON *item, struct hub_entry *ret)
{
	struct hub_entry e = {0};
	const char *type, *path, *oid, *sha256;
	const cJSON *lfs;
	uint64_t size = 0;

	if (!cJSON_IsObject(item) || field_text(item, "type", &type) < 0 || !type ||
	    field_text(item, "path", &path) < 0 || !path)
		return -EBADMSG;
	if (!repo_path_valid(path))
		return 1;
	e.kind = strcmp(type, "file") == 0        ? HUB_ENTRY_FILE
	         : strcmp(type, "directory") == 0 ? HUB_ENTRY_DIR
	                                          : HUB_ENTRY_OTHER;
	if (field_text(item, "oid", &oid) < 0 || (!oid && e.kind != HUB_ENTRY_OTHER))
		return -EBADMSG;
	if (oid && (strlen(oid) != 40 || util_unhex(oid, e.oid, sizeof(e.oid)) < 0))
		return -EBADMSG;
	if (e.kind == HUB_ENTRY_FILE) {
		lfs = field(item, "lfs");
		if (lfs) {
			if (!cJSON_IsObject(lfs) || field_text(lfs, "oid", &sha256) < 0 || !sha256 ||
			    field_u64(lfs, "size", &size) < 0 ||
			    hash_key_from_hex(HASH_SHA256, sha256, size, &e.key) < 0)
				return -EBADMSG;
		} else if (field_u64(item, "size", &size) < 0 ||
		           hash_key_from_hex(HASH_GIT_SHA1, oid, size, &e.key) < 0) {
			return -EBADMSG;
		}
	}
	e.path = strdup(path);
	if (!e.path)
		return -ENOMEM;
	*ret = e;
	return 0;
}

int hub_json_entries(const char *text, size_t len, struct hub_entries *io, size_t *io_skipped)
{
	AUTO_JSON *j = parse(text, len);
	CLEANUP(hub_entries_fini) struct hub_entries page = {0};
	struct hub_entry *grown;
	size_t total, skipped = 0;
	const cJSON *item;
	int r;

	if (!cJSON_IsArray(j))
		return -EBADMSG;
	total = (size_t)cJSON_GetArraySize(j);
	page.entries = calloc(total + 1, sizeof(*page.entries));
	if (!page.entries)
		return -ENOMEM;
	cJSON_ArrayForEach(item, j) {
		r = parse_entry(item, &page.entries[page.n]);
		if (r < 0)
			return r;
		if (r > 0)
			skipped++;
		else
			page.n++;
	}
	grown = realloc(io->entries, (io->n + page.n + 1) * sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	io->entries = grown;
	memcpy(grown + io->n, page.entries, page.n * sizeof(*grown));
	io->n += page.n;
	*io_skipped += skipped;
	page.n = 0;
	return 0;
}

/* -- publication -- */

static int parse_pre_file(const cJSON *item, struct hub_pre_file *io)
{
	const char *mode, *oid;
	bool ignored;

	if (field_text(item, "uploadMode", &mode) < 0 || !mode ||
	    field_bool(item, "shouldIgnore", &ignored) < 0 || field_text(item, "oid", &oid) < 0)
		return -EBADMSG;
	if (strcmp(mode, "lfs") != 0 && strcmp(mode, "regular") != 0)
		return -EBADMSG;
	if (oid && hash_key_from_hex(strlen(oid) == 40 ? HASH_GIT_SHA1 : HASH_SHA256, oid, 0,
	                             &io->remote) < 0)
		return -EBADMSG;
	io->has_remote = oid != NULL;
	io->lfs = strcmp(mode, "lfs") == 0;
	io->ignored = ignored;
	return 0;
}

int hub_json_preupload(const char *text, size_t len, struct hub_pre_file *files, size_t n, char ret_head[41])
{
	AUTO_JSON *j = parse(text, len);
	AUTO_FREE struct hub_pre_file *answers = NULL;
	AUTO_FREE bool *seen = NULL;
	const cJSON *list, *item;
	const char *path;
	char head[41];

	if (!cJSON_IsObject(j) || field_commit(j, "commitOid", head) < 0)
		return -EBADMSG;
	list = field(j, "files");
	if (!cJSON_IsArray(list) || (size_t)cJSON_GetArraySize(list) > 2 * n + 16)
		return -EBADMSG;
	answers = calloc(n + 1, sizeof(*answers));
	seen = calloc(n + 1, sizeof(*seen));
	if (!answers || !seen)
		return -ENOMEM;
	cJSON_ArrayForEach(item, list) {
		if (!cJSON_IsObject(item) || field_text(item, "path", &path) < 0 || !path)
			return -EBADMSG;
		for (size_t i = 0; i < n; i++) {
			if (strcmp(files[i].path, path) != 0)
				continue;
			if (parse_pre_file(item, &answers[i]) < 0)
				return -EBADMSG;
			seen[i] = true;
		}
	}
	for (size_t i = 0; i < n; i++) {
		if (!seen[i])
			return -EBADMSG;
	}
	for (size_t i = 0; i < n; i++) {
		files[i].lfs = answers[i].lfs;
		files[i].ignored = answers[i].ignored;
		files[i].has_remote = answers[i].has_remote;
		files[i].remote = answers[i].remote;
	}
	memcpy(ret_head, head, sizeof(head));
	return 0;
}

int hub_json_commit_result(const char *text, size_t len, struct hub_commit_result *ret)
{
	AUTO_JSON *j = parse(text, len);
	CLEANUP(hub_commit_result_fini) struct hub_commit_result res = {0};
	const char *url, *pr_url;
	int r;

	if (!cJSON_IsObject(j) || field_commit(j, "commitOid", res.commit) < 0 || !res.commit[0] ||
	    field_text(j, "commitUrl", &url) < 0 || field_text(j, "pullRequestUrl", &pr_url) < 0)
		return -EBADMSG;
	r = url ? dup_text(url, &res.url) : 0;
	if (r < 0)
		return r;
	r = pr_url ? dup_text(pr_url, &res.pr_url) : 0;
	if (r < 0)
		return r;
	*ret = STEAL(res);
	return 0;
}

static int field_number(const cJSON *object, const char *name, unsigned *ret)
{
	const cJSON *f = field(object, name);

	if (!f || !cJSON_IsNumber(f) || f->valuedouble < 1 || f->valuedouble > INT32_MAX)
		return -EBADMSG;
	*ret = (unsigned)f->valuedouble;
	return 0;
}

int hub_json_number(const char *text, size_t len, const char *name, unsigned *ret)
{
	AUTO_JSON *j = parse(text, len);

	return cJSON_IsObject(j) ? field_number(j, name, ret) : -EBADMSG;
}

int hub_json_pr(const char *text, size_t len, struct hub_pr *ret)
{
	static const char *const states[] = {
		[HUB_PR_DRAFT] = "draft", [HUB_PR_OPEN] = "open", [HUB_PR_CLOSED] = "closed",
		[HUB_PR_MERGED] = "merged",
	};
	AUTO_JSON *j = parse(text, len);
	struct hub_pr pr = {0};
	const cJSON *changes;
	const char *status;
	size_t i = 0;

	if (!cJSON_IsObject(j) || field_text(j, "status", &status) < 0 || !status)
		return -EBADMSG;
	while (i < ARRAY_LEN(states) && strcmp(states[i], status) != 0)
		i++;
	if (i == ARRAY_LEN(states))
		return -EBADMSG;
	pr.status = (enum hub_pr_status)i;
	changes = field(j, "changes");
	if (changes && field_commit(changes, "mergeCommitId", pr.merged_as) < 0)
		return -EBADMSG;
	*ret = pr;
	return 0;
}

int hub_json_find_draft(const char *text, size_t len, const char *title, unsigned *ret)
{
	AUTO_JSON *j = parse(text, len);
	const cJSON *list, *item;
	unsigned found = 0;

	list = cJSON_IsObject(j) ? field(j, "discussions") : NULL;
	if (!list || !cJSON_IsArray(list))
		return -EBADMSG;
	cJSON_ArrayForEach(item, list) {
		const char *status, *name;
		unsigned number;

		if (!cJSON_IsObject(item) || field_text(item, "status", &status) < 0 ||
		    field_text(item, "title", &name) < 0 || field_number(item, "num", &number) < 0)
			return -EBADMSG;
		if (status && name && strcmp(status, "draft") == 0 && strcmp(name, title) == 0)
			found = MAX(found, number);
	}
	*ret = found;
	return 0;
}

void hub_json_lfs_batch_fini(struct hub_json_lfs_batch *b)
{
	for (size_t i = 0; i < b->n; i++) {
		struct hub_json_lfs *o = &b->objects[i];

		for (char **h = o->headers; h && *h; h++)
			free(*h);
		for (size_t k = 0; k < o->n_parts; k++)
			free(o->parts[k]);
		free(o->headers);
		free(o->parts);
		free(o->error);
		free(o->href);
		free(o->verify_href);
	}
	free(b->objects);
	*b = (struct hub_json_lfs_batch){0};
}

static int dup_url(const cJSON *f, char **ret)
{
	const char *text = f && cJSON_IsString(f) ? f->valuestring : NULL;

	if (!text || strlen(text) > MAX_URL || strncasecmp(text, "http", 4) != 0)
		return -EBADMSG;
	return dup_text(text, ret);
}

/* Headers that are ours or the transfer's; Authorization would be somebody's credential. */
static bool header_wanted(const char *name)
{
	static const char *const refused[] = {"authorization", "host", "content-length", "transfer-encoding",
	                                      "connection", "expect", "cookie", "proxy-authorization",
	                                      "range"};

	for (size_t i = 0; i < ARRAY_LEN(refused); i++) {
		if (strcasecmp(name, refused[i]) == 0)
			return false;
	}
	for (const char *c = name; *c; c++) {
		if (!isalnum((unsigned char)*c) && *c != '-' && *c != '_')
			return false;
	}
	return *name != '\0';
}

static int parse_part(const cJSON *f, size_t max, struct hub_json_lfs *io)
{
	size_t digits = strlen(f->string);
	unsigned long number;

	if (digits > 8)
		return -EBADMSG;
	number = strtoul(f->string, NULL, 10);
	if (number < 1 || number > max || io->parts[number - 1])
		return -EBADMSG;
	io->n_parts = MAX(io->n_parts, (size_t)number);
	return dup_url(f, &io->parts[number - 1]);
}

/* actions.upload.header: chunk_size and numbered parts for multipart, ordinary headers for basic. */
static int parse_upload_header(const cJSON *header, struct hub_json_lfs *io)
{
	size_t n = (size_t)cJSON_GetArraySize(header), n_headers = 0;
	const cJSON *f, *chunk = field(header, "chunk_size");
	int r;

	if (!cJSON_IsObject(header) || n > MAX_PARTS + 64)
		return -EBADMSG;
	if (chunk && (as_u64(chunk, &io->chunk_size) < 0 || io->chunk_size == 0))
		return -EBADMSG;
	io->headers = calloc(n + 1, sizeof(*io->headers));
	io->parts = calloc(n + 1, sizeof(*io->parts));
	if (!io->headers || !io->parts)
		return -ENOMEM;
	cJSON_ArrayForEach(f, header) {
		size_t digits = strspn(f->string, "0123456789");

		if (f == chunk)
			continue;
		if (chunk && digits > 0 && f->string[digits] == '\0') {
			r = parse_part(f, n, io);
			if (r < 0)
				return r;
			continue;
		}
		if (chunk || !header_wanted(f->string) || !cJSON_IsString(f))
			continue;
		if (strlen(f->valuestring) > MAX_HEADER || strpbrk(f->valuestring, "\r\n"))
			return -EBADMSG;
		io->headers[n_headers] = util_printf("%s: %s", f->string, f->valuestring);
		if (!io->headers[n_headers])
			return -ENOMEM;
		n_headers++;
	}
	for (size_t i = 0; i < io->n_parts; i++) {
		if (!io->parts[i])
			return -EBADMSG;
	}
	return chunk && io->n_parts == 0 ? -EBADMSG : 0;
}

static int parse_lfs_error(const cJSON *error, struct hub_json_lfs *io)
{
	const char *message;
	uint64_t code;

	if (!cJSON_IsObject(error) || field_u64(error, "code", &code) < 0 || code > 999 ||
	    field_text(error, "message", &message) < 0)
		return -EBADMSG;
	io->error_code = code ? (int)code : 500;
	return dup_text(message, &io->error);
}

static int parse_lfs_object(const cJSON *item, struct hub_json_lfs *io)
{
	const cJSON *error, *actions, *upload, *verify, *header;
	uint64_t size = 0;
	const char *oid;
	int r;

	if (!cJSON_IsObject(item) || field_text(item, "oid", &oid) < 0 || !oid)
		return -EBADMSG;
	if (field(item, "size") && field_u64(item, "size", &size) < 0)
		return -EBADMSG;
	if (hash_key_from_hex(HASH_SHA256, oid, size, &io->key) < 0)
		return -EBADMSG;
	error = field(item, "error");
	if (error)
		return parse_lfs_error(error, io);
	actions = field(item, "actions");
	upload = field(actions, "upload");
	if (!upload)
		return actions && !cJSON_IsObject(actions) ? -EBADMSG : 0;
	io->upload = true;
	r = dup_url(field(upload, "href"), &io->href);
	if (r < 0)
		return r;
	header = field(upload, "header");
	r = header ? parse_upload_header(header, io) : 0;
	if (r < 0)
		return r;
	verify = field(actions, "verify");
	return verify ? dup_url(field(verify, "href"), &io->verify_href) : 0;
}

int hub_json_lfs_batch(const char *text, size_t len, struct hub_json_lfs_batch *ret)
{
	AUTO_JSON *j = parse(text, len);
	CLEANUP(hub_json_lfs_batch_fini) struct hub_json_lfs_batch batch = {0};
	const cJSON *list, *item;
	int r;

	list = cJSON_IsObject(j) ? field(j, "objects") : NULL;
	if (!cJSON_IsArray(list))
		return -EBADMSG;
	batch.objects = calloc((size_t)cJSON_GetArraySize(list) + 1, sizeof(*batch.objects));
	if (!batch.objects)
		return -ENOMEM;
	cJSON_ArrayForEach(item, list) {
		/* Counted first: what a failure leaves half-built is freed with the rest. */
		r = parse_lfs_object(item, &batch.objects[batch.n++]);
		if (r < 0)
			return r;
	}
	*ret = STEAL(batch);
	return 0;
}

/* -- errors -- */

/* Appends text as one line: control characters become blanks, what is no UTF-8 a question mark. */
static void line_add(const char *text, size_t len, char *ret, size_t ret_size)
{
	size_t at = strlen(ret);

	for (size_t i = 0, n; i < len; i += n) {
		n = hub_json_utf8((const unsigned char *)text + i, len - i);
		if (at + MAX(n, 1) >= ret_size)
			break;
		if (n == 0) {
			ret[at++] = '?';
			n = 1;
		} else if (n == 1 && ((unsigned char)text[i] < 0x20 || text[i] == 0x7f)) {
			ret[at++] = ' ';
		} else {
			memcpy(ret + at, text + i, n);
			at += n;
		}
	}
	ret[at] = '\0';
}

static void line_add_field(const cJSON *f, char *ret, size_t ret_size)
{
	if (!cJSON_IsString(f) || !f->valuestring[0])
		return;
	if (ret[0])
		line_add("; ", 2, ret, ret_size);
	line_add(f->valuestring, strlen(f->valuestring), ret, ret_size);
}

void hub_json_error(const char *text, size_t len, char *ret, size_t ret_size)
{
	AUTO_JSON *j = parse(text, len);
	const cJSON *item;

	assert(ret_size > 0);
	ret[0] = '\0';
	if (!j) {
		size_t line = 0;

		while (line < len && text[line] != '\r' && text[line] != '\n')
			line++;
		/* HTML and XML of proxies and stores say nothing to a user. */
		if (line > 0 && !strchr("<{[", text[0]))
			line_add(text, line, ret, ret_size);
		return;
	}
	if (!cJSON_IsObject(j))
		return;
	line_add_field(field(j, "error"), ret, ret_size);
	if (cJSON_IsArray(field(j, "error"))) {
		cJSON_ArrayForEach(item, field(j, "error"))
			line_add_field(item, ret, ret_size);
	}
	line_add_field(field(j, "error_description"), ret, ret_size);
	cJSON_ArrayForEach(item, field(j, "errors"))
		line_add_field(cJSON_IsObject(item) ? field(item, "message") : item, ret, ret_size);
	if (!ret[0])
		line_add_field(field(j, "message"), ret, ret_size);
}
