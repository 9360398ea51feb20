/* refresh: has a branch moved? One thread that, every poll period, gives back branches with nothing staged (view_reap). It
 * asks for nothing itself: heads are asked for when they are used (view). */
#ifndef HUGFS_REFRESH_H
#define HUGFS_REFRESH_H

#include "view.h"

struct refresh;
int refresh_new(struct view *view, struct refresh **ret) MUST_USE;
/* Ends the thread. */
void refresh_free(struct refresh *r);

#endif
