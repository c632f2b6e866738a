"""The paper's equations as pure functions, and the memory bank: tensors in, tensors out, on any device.

Shape suffixes: B images, C classes, H x W pixels, D features; P pixels of a batch in one row, M anchors
of a class, N negatives of an anchor, K rows of a table of representations. Masks over classes and pixels
have the class first, so that the pixels of one class lie side by side.
"""
