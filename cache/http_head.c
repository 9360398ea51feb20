/* http_head: what the headers of an answer say, one field at a time.
 *
 * Not for deciding anything about the transfer (http.c). Any thread; no state. Values come from anybody: a
 * field that makes no sense counts as not given. */
#define LOG_MODULE "http_head"

#include "http_head.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include <curl/curl.h>

#include "log.h"

#define URL_TEXT_MAX 16384
#define ANNOUNCED_MAX_S 86400

char *http_url_for_log(const char *url)
{
	size_t n = MIN(strcspn(url, "?#"), (size_t)400);
	char *text = strndup(url, n);

	for (char *c = text; c && *c; c++) {
		if ((unsigned char)*c < 0x20 || *c == 0x7f)
			*c = '?';
	}
	return text;
}

/* Location against the URL that was asked, every byte of it kept. NULL: no memory or no sense. */
static char *resolve_location(const char *base, const char *location)
{
	const char *host = strstr(base, "://");
	size_t scheme, origin, path;

	if (!host || strlen(location) > URL_TEXT_MAX)
		return NULL;
	if (strncasecmp(location, "https://", 8) == 0 || strncasecmp(location, "http://", 7) == 0)
		return strdup(location);
	scheme = (size_t)(host - base) + 1;
	origin = (size_t)(host - base) + 3 + strcspn(host + 3, "/?#");
	if (strncmp(location, "//", 2) == 0)
		return util_printf("%.*s%s", (int)scheme, base, location);
	if (location[0] == '/')
		return util_printf("%.*s%s", (int)origin, base, location);
	path = origin + strcspn(base + origin, "?#");
	if (location[0] == '?')
		return util_printf("%.*s%s", (int)path, base, location);
	while (path > origin && base[path - 1] != '/')
		path--;
	return util_printf("%.*s%s%s", (int)path, base, path == origin ? "/" : "", location);
}

void http_resp_fini(struct http_resp *r)
{
	buf_fini(&r->body);
	free(r->location);
	free(r->etag);
	free(r->linked_etag);
	free(r->link_next);
	free(r->repo_commit);
	free(r->error_code);
	free(r->error_message);
	free(r->request_id);
	free(r->raw_etag);
	*r = (struct http_resp){0};
}

void http_head_reset(struct http_resp *r)
{
	http_resp_fini(r);
	r->content_length = r->linked_size = -1;
	r->range_first = r->range_last = r->range_total = -1;
	r->retry_after_s = -1;
}

/* Without W/ and quotes. */
static char *plain_etag(const char *value)
{
	size_t n;

	if (strncmp(value, "W/", 2) == 0)
		value += 2;
	n = strlen(value);
	if (n >= 2 && value[0] == '"' && value[n - 1] == '"')
		return strndup(value + 1, n - 2);
	return strdup(value);
}

/* A non-negative decimal number that ends the text or stands before one of `ends`. */
static bool parse_number(const char *text, const char *ends, int64_t *ret)
{
	size_t n = strspn(text, "0123456789");

	if (n == 0 || n > 18 || (text[n] != '\0' && !strchr(ends, text[n])))
		return false;
	*ret = strtoll(text, NULL, 10);
	return true;
}

/* "bytes a-b/total", "bytes a-b/" followed by a star, "bytes" star "/total" (a 416). */
static void parse_content_range(const char *value, struct http_resp *r)
{
	int64_t first = -1, last = -1, total = -1;
	const char *slash = strchr(value, '/'), *dash;

	if (strncasecmp(value, "bytes", 5) != 0 || !slash)
		return;
	value += 5 + strspn(value + 5, " ");
	dash = strchr(value, '-');
	if (slash[1] != '*' && !parse_number(slash + 1, "", &total))
		return;
	if (value[0] != '*' &&
	    (!dash || dash > slash || !parse_number(value, "-", &first) ||
	     !parse_number(dash + 1, "/", &last)))
		return;
	r->range_first = first;
	r->range_last = last;
	r->range_total = total;
}

/* The value of `;name=` in a structured header. */
static bool parse_param(const char *value, char name, int64_t *ret)
{
	for (const char *p = strchr(value, ';'); p; p = strchr(p, ';')) {
		p++;
		p += strspn(p, " \t");
		if (p[0] == name && p[1] == '=')
			return parse_number(p + 2, "; ,\t", ret);
	}
	return false;
}

/* hub-api.md 8.1: `"api";r=0;t=287`. It wins over Retry-After, in whichever order they come. */
static void parse_rate_limit(const char *value, struct http_resp *r)
{
	int64_t left, reset;

	if (parse_param(value, 'r', &left) && parse_param(value, 't', &reset) && left == 0) {
		r->window_used_up = true;
		r->retry_after_s = (int)MIN(reset, ANNOUNCED_MAX_S);
	}
}

static void parse_retry_after(const char *value, struct http_resp *r)
{
	int64_t wait;
	time_t at;

	if (r->window_used_up)
		return;
	if (!parse_number(value, "", &wait)) {
		at = curl_getdate(value, NULL);
		if (at < 0)
			return;
		wait = MAX((int64_t)at - (r->date_s ? r->date_s : (int64_t)time(NULL)), 0);
	}
	r->retry_after_s = (int)MIN(wait, ANNOUNCED_MAX_S);
}

/* URL of rel="next" in `<url>; rel="next", <url2>; …`. */
static char *parse_link_next(const char *value)
{
	while (*value) {
		const char *open = strchr(value, '<'), *close = open ? strchr(open, '>') : NULL;
		const char *end;

		if (!close)
			return NULL;
		for (end = close + 1; *end && *end != ','; end++) {
			if (*end == '"') {
				end = strchr(end + 1, '"');
				if (!end)
					return NULL;
			}
		}
		for (const char *p = close + 1; p < end; p++) {
			if (strncasecmp(p, "rel=\"next\"", 10) == 0 ||
			    (strncasecmp(p, "rel=next", 8) == 0 && !isalnum((unsigned char)p[8])))
				return strndup(open + 1, (size_t)(close - open) - 1);
		}
		value = end;
	}
	return NULL;
}

static int keep(char **at, char *value)
{
	if (!value)
		return -ENOMEM;
	free(*at);
	*at = value;
	return 0;
}

int http_head_field(struct http_resp *r, const char *url, const char *name, const char *value)
{
	time_t at;
	char *next;

	if (strcasecmp(name, "location") == 0) {
		next = resolve_location(url, value);
		return next ? keep(&r->location, next) : 0;
	}
	if (strcasecmp(name, "etag") == 0) {
		int rc = keep(&r->etag, plain_etag(value));

		return rc < 0 ? rc : keep(&r->raw_etag, strdup(value));
	}
	if (strcasecmp(name, "x-linked-etag") == 0)
		return keep(&r->linked_etag, plain_etag(value));
	if (strcasecmp(name, "x-repo-commit") == 0)
		return keep(&r->repo_commit, strdup(value));
	if (strcasecmp(name, "x-error-code") == 0)
		return keep(&r->error_code, strdup(value));
	if (strcasecmp(name, "x-error-message") == 0)
		return keep(&r->error_message, strdup(value));
	if (strcasecmp(name, "x-request-id") == 0)
		return keep(&r->request_id, strdup(value));
	if (strcasecmp(name, "x-amz-cf-id") == 0 || strcasecmp(name, "x-amzn-trace-id") == 0)
		return r->request_id ? 0 : keep(&r->request_id, strdup(value));
	if (strcasecmp(name, "link") == 0) {
		next = parse_link_next(value);
		return next ? keep(&r->link_next, next) : 0;
	}
	if (strcasecmp(name, "content-length") == 0) {
		if (!parse_number(value, "", &r->content_length))
			r->content_length = -1;
	} else if (strcasecmp(name, "x-linked-size") == 0) {
		if (!parse_number(value, "", &r->linked_size))
			r->linked_size = -1;
	} else if (strcasecmp(name, "content-range") == 0) {
		parse_content_range(value, r);
	} else if (strcasecmp(name, "date") == 0) {
		at = curl_getdate(value, NULL);
		r->date_s = at > 0 ? at : 0;
	} else if (strcasecmp(name, "ratelimit") == 0) {
		parse_rate_limit(value, r);
	} else if (strcasecmp(name, "retry-after") == 0) {
		parse_retry_after(value, r);
	} else if (strcasecmp(name, "content-type") == 0) {
		r->is_json = strcasestr(value, "json") != NULL;
	} else if (strcasecmp(name, "content-encoding") == 0 && strcasecmp(value, "identity") != 0) {
		AUTO_FREE char *text = http_url_for_log(url);

		/* Not asked for, and the offsets of such a body mean nothing. */
		log_warn("%s: the answer is encoded as %.20s though identity was asked", text ? text : "?",
		         value);
		return -EIO;
	}
	return 0;
}
