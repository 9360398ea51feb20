/* ops_pass: which open files the kernel reads by itself, from a lent file (passthrough).
 *
 * For: the choice at each open, and keeping the kernel's rules. Not for: how it is told (ops_wire.c), nor which file holds the
 * bytes (fetch_lend.c).
 *
 * The rules (fs/fuse/iomode.c; a breach is EIO for the user): the first open of an inode decides for all that are open at
 * the same time, through the page cache or from one lent file; the decision lasts until our last RELEASE of them. So a file
 * that becomes complete while it is open is lent at its next open.
 *
 *   inode             first open: a reader           a writer              another reader
 *   shared = lent = 0 lent, if its file can be; else  shared                -
 *   shared > 0        -                               shared                shared
 *   lent > 0          -                               parted: see below     lent
 *
 * Only files with the Hub's bytes are lent, and a lent file never changes: it is in the cache, complete and verified, and kept
 * until the last RELEASE. A writer would have to write into it. So the inode is parted from its name instead, as if a push
 * had replaced it: its readers keep the bytes that they opened, the kernel (ESTALE) looks the name up again, finds a new inode
 * and opens that.
 *
 * Threads: see ops.c. The fields of struct inode lie under its revision's lock. */
#define LOG_MODULE "ops"

#include "ops_internal.h"

#include <assert.h>
#include <errno.h>

#include "log.h"

/* rev->lock held. */
static int lend(struct ops *o, struct inode *inode)
{
	struct loan *loan;
	int r, id;

	if (!atomic_load(&ops_wire(o)->lends))
		return -EOPNOTSUPP;
	r = view_lend(ops_view(o), inode, &loan);
	if (r < 0)
		return r;
	id = ops_wire_lend(ops_wire(o), loan_fd(loan));
	if (id < 0) {
		loan_end(loan);
		return id;
	}
	inode->loan = loan;
	inode->lent_id = id;
	log_debug("inode %llu: its file is lent", (unsigned long long)inode->id);
	return 0;
}

int ops_pass_open(struct ops *o, struct handle *h, int *ret_id)
{
	struct inode *inode = h->inode;

	LOCKED(&inode->rev->lock);
	assert(h->pass == PASS_NONE && !(inode->shared && inode->lent));
	if (h->writer && inode->lent) {
		view_part(ops_view(o), inode); /* it was opened between view_stage_file and here */
		return -ESTALE;
	}
	if (inode->lent || (!h->writer && !inode->shared && lend(o, inode) == 0)) {
		inode->lent++;
		h->pass = PASS_LENT;
		*ret_id = inode->lent_id;
		return 0;
	}
	inode->shared++;
	h->pass = PASS_SHARED;
	*ret_id = 0;
	return 0;
}

void ops_pass_close(struct ops *o, struct handle *h)
{
	struct inode *inode = h->inode;
	struct loan *loan = NULL;
	int id = 0;

	if (h->pass == PASS_NONE)
		return;
	{
		LOCKED(&inode->rev->lock);
		if (h->pass == PASS_SHARED) {
			inode->shared--;
		} else if (--inode->lent == 0) {
			loan = STEAL(inode->loan);
			id = STEAL(inode->lent_id);
		}
	}
	h->pass = PASS_NONE;
	if (!loan)
		return;
	ops_wire_take_back(ops_wire(o), id);
	loan_end(loan);
}
