/* What the files of the pipeline tell each other; everyone else includes pg_pipeline.h. */
#ifndef MOONPOOL_PG_PIPELINE_PARTS_H
#define MOONPOOL_PG_PIPELINE_PARTS_H

#include "pg_pipeline.h"

enum expectation_kind { EXPECT_PREPARED, EXPECT_ITEM, EXPECT_SYNC, EXPECT_OWN };

/* The answer of an item is in, or nobody waits for it any more: it makes room for another. */
void pipeline_leave_window(struct pipeline *pipeline, const struct expectation *expected);

#endif
