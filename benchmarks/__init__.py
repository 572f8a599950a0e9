"""How fast it is, as ratios within one run; the package never imports this folder."""
