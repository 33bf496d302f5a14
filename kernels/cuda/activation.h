// Activations, by the formulas of src/activation.rs (the same coefficients; divisions within 2 units in the last
// place).
#pragma once
#include "device.h"

/// The error function: an odd rational function on [-4, 4], constant outside.
DEVICE float erf_rational(float x) {
    x = fminf(fmaxf(x, -4.f), 4.f);
    float s = x * x;
    float p = -2.7261423e-10f;
    p = fmaf(p, s, 2.7706814e-8f);
    p = fmaf(p, s, -2.101024e-6f);
    p = fmaf(p, s, -5.6925064e-5f);
    p = fmaf(p, s, -7.3499063e-4f);
    p = fmaf(p, s, -2.9546e-3f);
    p = fmaf(p, s, -1.6096033e-2f);
    float q = -1.4566072e-5f;
    q = fmaf(q, s, -2.1337405e-4f);
    q = fmaf(q, s, -1.682827e-3f);
    q = fmaf(q, s, -7.373329e-3f);
    q = fmaf(q, s, -1.4264739e-2f);
    // Within 2 units in the last place, and no check for a q that is tiny or huge: it is between 0.014 and 1.3.
    return __fdividef(x * p, q);
}

/// x/2 · (1 + erf(x/√2)).
DEVICE float gelu(float x) {
    float half = 0.5f * x;
    return fmaf(half, erf_rational(x * 0.70710678f), half);
}

/// x / (1 + e^-x).
DEVICE float silu(float x) { return __fdividef(x, 1.f + exp2_approximate(-1.44269504f * x)); }
