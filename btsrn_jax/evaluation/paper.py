"""Every published number, in one place (docs/paper.md, sections 4 and 5)."""

# Tables 1 and 2: PSNR of DIV2K's validation images at x2, by the blocks of the low and
# the high stage.
TABLE_1 = {"6 + 3": 34.14024, "6 + 4": 34.16181, "6 + 5": 34.12123}
TABLE_2 = {
    "5 + 4": 34.15799,
    "6 + 4": 34.16181,
    "7 + 4": 34.15126,
    "8 + 4": 34.16568,
    "9 + 4": 34.18892,
}

# Table 3, the challenge's test images (protocol `ntire`), by scale: BTSRN (900 training
# images, ensemble) and bicubic.
TABLE_3 = {2: (34.19, 31.01), 3: (30.44, 28.22), 4: (28.49, 26.65)}

# Table 4 (protocol `benchmark`): BTSRN, VDSR, bicubic at x2, x3, x4.
TABLE_4 = {
    "Set5": ((37.75, 34.03, 31.85), (37.53, 33.66, 31.35), (33.64, 30.38, 28.42)),
    "Set14": ((33.20, 29.90, 28.20), (33.03, 29.77, 28.01), (30.22, 27.51, 25.95)),
    "B100": ((32.05, 28.97, 27.47), (31.90, 28.82, 27.29), (29.55, 27.20, 25.97)),
    "Urban100": ((31.63, 27.75, 25.74), (30.76, 27.14, 25.18), (26.87, 24.46, 23.14)),
}
TABLE_4_MODELS = ("btsrn", "vdsr", "bicubic")
SAME_SETS = {"BSD100": "B100", "BSDS100": "B100"}  # the same images
SET_SIZES = {"Set5": 5, "Set14": 14, "B100": 100, "Urban100": 100}  # in images

# Other networks, as they published it: PSNR of luminance (protocol `modern`) at x2, x3,
# x4. What VDSR published is in Table 4.
NEIGHBOURS = ("CARN (1.59 M)", "EDSR-baseline (1.37 M)", "NinaSR-B1 (1.02 M)")
PUBLISHED = {
    "Set5": ((37.76, 34.29, 32.13), (37.99, 34.37, 32.09), (38.14, 34.48, 32.28)),
    "Set14": ((33.52, 30.29, 28.60), (33.57, 30.28, 28.58), (33.71, 30.41, 28.71)),
    "B100": ((32.09, 29.06, 27.58), (32.16, 29.08, 27.56), (32.24, 29.13, 27.62)),
}
