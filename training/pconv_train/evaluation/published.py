"""Published figures, to print beside measured ones: they are of other photos and other holes."""

from pconv_train.evaluation.pairs import COLUMNS, column_name

# Table 1 of Liu et al. 2018, on Places2 (the IScore, here "inception", on ImageNet); columns as in COLUMNS.
_TABLE_1 = """
l1 | PatchMatch | 0.45 0.42 1.25 1.16 2.28 2.07 3.52 3.17 4.77 4.27 6.98 6.34
l1 | Iizuka et al. | 1.39 1.53 3.01 3.22 4.51 5.00 6.05 6.77 7.34 8.20 8.60 9.78
l1 | Yu et al. | 0.78 0.88 1.98 2.09 3.34 3.72 4.98 5.50 6.51 7.13 8.33 9.19
l1 | Conv | 0.52 0.50 1.26 1.17 2.20 2.01 3.37 3.03 4.58 4.10 6.66 6.01
l1 | PConv | 0.49 0.47 1.18 1.09 2.07 1.88 3.19 2.84 4.37 3.85 6.45 5.72
psnr | PatchMatch | 32.97 33.68 26.87 27.51 23.70 24.35 21.27 22.05 19.70 20.58 17.60 18.22
psnr | Iizuka et al. | 30.17 29.74 23.87 23.83 20.92 20.73 18.80 18.61 17.60 17.38 16.90 16.37
psnr | Yu et al. | 29.07 28.38 23.20 22.86 20.58 19.86 18.53 17.85 17.31 16.68 16.24 15.52
psnr | Conv | 33.21 33.79 27.30 27.89 24.23 24.90 21.79 22.60 20.20 21.13 18.24 18.94
psnr | PConv | 33.75 34.34 27.71 28.32 24.54 25.25 22.01 22.89 20.34 21.38 18.21 19.04
ssim | PatchMatch | 0.946 0.947 0.861 0.865 0.763 0.768 0.666 0.675 0.568 0.579 0.459 0.472
ssim | Iizuka et al. | 0.929 0.923 0.831 0.829 0.732 0.721 0.638 0.627 0.543 0.533 0.446 0.440
ssim | Yu et al. | 0.940 0.938 0.855 0.855 0.760 0.758 0.666 0.666 0.569 0.570 0.465 0.470
ssim | Conv | 0.943 0.943 0.862 0.865 0.769 0.772 0.674 0.682 0.576 0.587 0.463 0.478
ssim | PConv | 0.946 0.945 0.867 0.870 0.775 0.779 0.681 0.689 0.583 0.595 0.468 0.484
inception | PatchMatch | 0.090 0.058 0.307 0.204 0.766 0.465 1.551 0.921 2.724 1.422 4.075 2.226
inception | Iizuka et al. | 0.183 0.112 0.619 0.464 1.607 1.046 2.774 1.941 3.920 2.825 4.877 3.362
inception | Yu et al. | 0.127 0.088 0.396 0.307 0.978 0.621 1.757 1.126 2.759 1.801 3.967 2.525
inception | Conv | 0.068 0.041 0.228 0.149 0.603 0.366 1.264 0.731 2.368 1.189 4.162 2.224
inception | PConv | 0.051 0.032 0.163 0.109 0.446 0.270 0.954 0.565 1.881 0.838 3.603 1.588
"""

# ×4, bicubic input, Y, 4-px crop; Set5 and Set14, dB.
_UPSCALE_PSNR = {
    "bicubic": (28.42, 26.00),
    "SRCNN": (30.48, 27.50),
    "SRGAN": (29.40, 26.02),
    "SRResNet": (32.05, 28.49),
    "EDSR": (32.46, 28.80),
}

Published = dict[str, dict[str, dict[str, float]]]  # metric → method → column → figure


def published(task: str) -> Published:
    """Return what is published for a task, under the columns' names of this project."""
    if task == "upscale":
        sets = {name: {"set5": five, "set14": fourteen} for name, (five, fourteen) in _UPSCALE_PSNR.items()}
        return {"psnr": sets}
    columns = [column_name(index, border) for index, border in COLUMNS]
    result: Published = {}
    for line in _TABLE_1.strip().splitlines():
        metric, method, figures = line.split(" | ")
        result.setdefault(metric, {})[method] = dict(zip(columns, map(float, figures.split()), strict=True))
    return result
