/* hub_json_write: the writing half of hub_json: one JSON value, appended piece by piece to a buffer.
 *
 * Not for knowing any structure. Any thread; the writer belongs to its caller. */
#define LOG_MODULE "hub_json"

#include "hub_json.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

size_t hub_json_utf8(const unsigned char *p, size_t left)
{
	static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
	size_t n = p[0] < 0x80 ? 1 : p[0] >= 0xf0 && p[0] < 0xf8 ? 4 : p[0] >= 0xe0 && p[0] < 0xf0 ? 3
	           : p[0] >= 0xc0 && p[0] < 0xe0                 ? 2
	                                                         : 0;
	uint32_t c;

	if (n <= 1 || n > left)
		return n == 1;
	c = p[0] & (0xffu >> (n + 1));
	for (size_t i = 1; i < n; i++) {
		if ((p[i] & 0xc0) != 0x80)
			return 0;
		c = c << 6 | (p[i] & 0x3f);
	}
	return c < least[n] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000) ? 0 : n;
}

static void put(struct hub_json_writer *w, const void *data, size_t len)
{
	if (w->error == 0)
		w->error = buf_add(w->out, data, len);
}

static void put_text(struct hub_json_writer *w, const char *text, bool exact)
{
	const unsigned char *p = (const unsigned char *)text;
	size_t len = strlen(text), start = 0, n;
	char escape[8];

	put(w, "\"", 1);
	for (size_t i = 0; i < len; i += n) {
		const char *instead;

		n = hub_json_utf8(p + i, len - i);
		if (n == 0 && exact && w->error == 0)
			w->error = -EILSEQ;
		if (n == 0) {
			instead = "\xef\xbf\xbd";
			n = 1;
		} else if (p[i] == '"' || p[i] == '\\') {
			snprintf(escape, sizeof(escape), "\\%c", p[i]);
			instead = escape;
		} else if (p[i] < 0x20 || p[i] == 0x7f) {
			snprintf(escape, sizeof(escape), "\\u%04x", p[i]);
			instead = escape;
		} else {
			continue;
		}
		put(w, text + start, i - start);
		put(w, instead, strlen(instead));
		start = i + n;
	}
	put(w, text + start, len - start);
	put(w, "\"", 1);
}

/* What stands before a value: a comma, and the key inside an object. */
static void begin_value(struct hub_json_writer *w, const char *key)
{
	assert((key != NULL) == (w->depth > 0 && w->closing[w->depth] == '}'));
	if (w->any[w->depth])
		put(w, ",", 1);
	w->any[w->depth] = true;
	if (key) {
		put_text(w, key, true);
		put(w, ":", 1);
	}
}

static void begin_container(struct hub_json_writer *w, const char *key, const char *opening, char closing)
{
	begin_value(w, key);
	put(w, opening, 1);
	assert(w->depth < HUB_JSON_WRITE_DEPTH);
	w->depth++;
	w->any[w->depth] = false;
	w->closing[w->depth] = closing;
}

void hub_json_write_init(struct hub_json_writer *w, struct buf *out)
{
	*w = (struct hub_json_writer){.out = out};
}

void hub_json_write_object(struct hub_json_writer *w, const char *key)
{
	begin_container(w, key, "{", '}');
}

void hub_json_write_array(struct hub_json_writer *w, const char *key)
{
	begin_container(w, key, "[", ']');
}

void hub_json_write_end(struct hub_json_writer *w)
{
	assert(w->depth > 0);
	put(w, &w->closing[w->depth], 1);
	w->depth--;
}

void hub_json_write_string(struct hub_json_writer *w, const char *key, const char *text)
{
	begin_value(w, key);
	if (text)
		put_text(w, text, false);
	else
		put(w, "null", 4);
}

void hub_json_write_exact(struct hub_json_writer *w, const char *key, const char *text)
{
	begin_value(w, key);
	put_text(w, text, true);
}

void hub_json_write_number(struct hub_json_writer *w, const char *key, int64_t number)
{
	char text[24];

	begin_value(w, key);
	snprintf(text, sizeof(text), "%" PRId64, number);
	put(w, text, strlen(text));
}

void hub_json_write_double(struct hub_json_writer *w, const char *key, double number)
{
	char text[40];
	char *comma;

	begin_value(w, key);
	snprintf(text, sizeof(text), "%.10g", number);
	if (!isfinite(number))
		snprintf(text, sizeof(text), "null");
	comma = strchr(text, ',');
	if (comma)
		*comma = '.';
	put(w, text, strlen(text));
}

void hub_json_write_bool(struct hub_json_writer *w, const char *key, bool value)
{
	begin_value(w, key);
	put(w, value ? "true" : "false", value ? 4 : 5);
}

size_t hub_json_base64(const void *data, size_t n, char *out)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	const uint8_t *p = data;
	char *start = out;

	for (; n >= 3; n -= 3, p += 3) {
		*out++ = digits[p[0] >> 2];
		*out++ = digits[(p[0] & 3) << 4 | p[1] >> 4];
		*out++ = digits[(p[1] & 15) << 2 | p[2] >> 6];
		*out++ = digits[p[2] & 63];
	}
	if (n > 0) {
		uint8_t second = n > 1 ? p[1] : 0;

		*out++ = digits[p[0] >> 2];
		*out++ = digits[(p[0] & 3) << 4 | second >> 4];
		*out++ = n > 1 ? digits[(second & 15) << 2] : '=';
		*out++ = '=';
	}
	return (size_t)(out - start);
}

void hub_json_write_base64(struct hub_json_writer *w, const char *key, const void *data, size_t n)
{
	const uint8_t *p = data;
	char piece[1024];

	begin_value(w, key);
	put(w, "\"", 1);
	while (n > 0) {
		size_t take = MIN(n, sizeof(piece) / 4 * 3);

		put(w, piece, hub_json_base64(p, take, piece));
		p += take;
		n -= take;
	}
	put(w, "\"", 1);
}

int hub_json_write_done(struct hub_json_writer *w)
{
	assert(w->depth == 0);
	return w->error;
}
