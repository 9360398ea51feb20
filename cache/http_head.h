/* http_head: the headers of an answer -> struct http_resp. Only http.c and tests use it. */
#ifndef HUGFS_HTTP_HEAD_H
#define HUGFS_HTTP_HEAD_H

#include "http.h"

/* Frees what is there and sets every field to "not given". */
void http_head_reset(struct http_resp *r);
/* Takes one header field of the answer to `url`. 0, -ENOMEM, or -EIO: the body is encoded, though identity
 * was asked. */
int http_head_field(struct http_resp *r, const char *url, const char *name, const char *value) MUST_USE;

#endif
