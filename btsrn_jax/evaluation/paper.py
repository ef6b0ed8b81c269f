"""Every published number, in one place (docs/paper.md, sections 4 and 5)."""

# Table 4 of the paper (protocol `benchmark`): BTSRN, VDSR, bicubic at x2, x3, x4.
TABLE_4 = {
    "Set5": ((37.75, 34.03, 31.85), (37.53, 33.66, 31.35), (33.64, 30.38, 28.42)),
    "Set14": ((33.20, 29.90, 28.20), (33.03, 29.77, 28.01), (30.22, 27.51, 25.95)),
    "B100": ((32.05, 28.97, 27.47), (31.90, 28.82, 27.29), (29.55, 27.20, 25.97)),
    "Urban100": ((31.63, 27.75, 25.74), (30.76, 27.14, 25.18), (26.87, 24.46, 23.14)),
}
TABLE_4_MODELS = ("btsrn", "vdsr", "bicubic")
SAME_SETS = {"BSD100": "B100", "BSDS100": "B100"}  # the same images
