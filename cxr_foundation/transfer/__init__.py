"""Downstream tasks: what an encoder is worth on someone's own labels.

`classify.run` leaves a folder with report.html and results.json. The JSON file holds:

* `schema`: "cxr_foundation.transfer.classify/2"; another number means other keys.
* `created` (UTC), `command`, `versions`, `model` (name, architecture, contract, SHA-256 of the
  weights, data sets in its pretraining by its card), `data` (folder name, images, digest of all
  bytes and labels used).
* `leaks`: `allowed`, and `tasks`, {task: {patients, pictures}} for those that leak; `seen`: per
  source of the pictures whether the encoder may have been pretrained on them, and why.
* `protocol`: mode, features, counts, draws, both parts of the split, `test_was_read`, seeds of the
  untrained twins, resamples, level of the intervals, and the statement that the report prints.
* `tasks`: for each the fields of `evaluate.protocol.Task`; `bootstrap_seed`; `train` and `test`
  with their images and patients per class; `draws`, a list of {positive, negative}: rows of the
  index, counted from 0, in their order, so that the first k of each are the labelled ones at k per
  class; `rows` and `differences`.
* `mean`: `rows` and `differences` of the mean over those tasks that are averaged, or null if they
  are fewer than two.

`rows` is {row: {count: cell}} with the rows model, untrained, raw_pixels, border and metadata; a
cell has `auroc` (mean over draws), `sd` over draws (null for one draw), `low` and `high` of the
interval, and `draws`, the AUROC of each. `differences` is {row: {count: cell}} for the encoder
minus that row, with `estimate`, `low` and `high`, paired.
"""
