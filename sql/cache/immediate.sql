-- immediate: fires the deferred triggers of this transaction now, so that what they write can be told
-- locks: whatever the triggers take
set constraints all immediate
