/* http_pool: connections that are kept. Only http.c uses it. */
#ifndef HUGFS_HTTP_POOL_H
#define HUGFS_HTTP_POOL_H

#include "http.h"

/* One connection at most, with what libcurl needs to drive a transfer on it. */
struct http_slot {
	void *multi, *easy; /* CURLM, CURL */
	enum http_lane lane;
	char *origin;
	int64_t idle_since;
	struct http_slot *next;
};
void http_slot_freep(struct http_slot **s);

struct http_pool;
struct http_pool *http_pool_new(void) MUST_USE; /* NULL: no memory */
void http_pool_free(struct http_pool *p);

/* A slot that had its connection to this origin last, for this lane if there is one, or a new one. (An idle
 * connection stands in nobody's way: the first request for data need not open its own to ask the Hub where they
 * are.) NULL: no memory. */
struct http_slot *http_pool_take(struct http_pool *p, enum http_lane lane, const char *origin) MUST_USE;
/* Keeps the slot, for a while. */
void http_pool_put(struct http_pool *p, struct http_slot *s);

#endif
