//! How matrices of the weights file are packed: one list of all formats, with all that a plan, a packer and `verify` have to
//! know about them.

use super::grids;
use super::scheme::{Plane, Scheme};
use super::weight::{Fields, IQ4_NL, Weight, bfloat, e2m1, e4m3, e8m0, half, signs_in, with_eighth};

/// What there is to know about a format.
struct Facts {
    block: usize,
    tiles: usize,
    planes: &'static [Plane],
    decodes_once: bool,
    weight: fn(&Fields) -> Weight,
}

/// Hands the list of formats to a macro.
///
/// A line gives the file of Forge's `forge-formats` that says how checkpoints store the formats in it, each with its constant
/// there. `block`, `tiles` and `planes` are its [`Scheme`]; `decodes_once` says that its kernel decodes weights once for all
/// rows of a threadgroup (`Shared` in `common.metal`, `float_rows.metal`); `weight` is the weight that a column's bits in the planes stand for.
#[macro_export]
macro_rules! packed_formats {
    ($then:ident) => {
        $then! {
            floats {
                /// Binary32, row by row.
                F32 = F32 {
                    block: 8, tiles: 1, planes: &[Plane::Values { bytes: 4 }], decodes_once: true,
                    weight: |p| Weight::exact(p.single(0)),
                }
                /// Binary16, row by row.
                F16 = F16 {
                    block: 8, tiles: 1, planes: &[Plane::Values { bytes: 2 }], decodes_once: true,
                    weight: |p| Weight::exact(p.half(0)),
                }
                /// The upper half of a binary32, row by row.
                BF16 = BF16 {
                    block: 8, tiles: 1, planes: &[Plane::Values { bytes: 2 }], decodes_once: true,
                    weight: |p| Weight::exact(bfloat(p.bits(0))),
                }
            }
            q8_0 {
                /// 8-bit codes less 128; half scale per 32 columns.
                Q8_0 = Q8_0 {
                    block: 32, tiles: 2, planes: &[Plane::CODES_8, Plane::HALF], decodes_once: true,
                    weight: |p| Weight::offset(p.half(1), p.bits(0), 128),
                }
            }
            q4_0 {
                /// 4-bit codes less 8; half scale per 32.
                Q4_0 = Q4_0 {
                    block: 32, tiles: 4, planes: &[Plane::CODES_4, Plane::HALF], decodes_once: true,
                    weight: |p| Weight::offset(p.half(1), p.bits(0), 8),
                }
            }
            q4_1 {
                /// 4-bit codes; half scale and half minimum per 32.
                Q4_1 = Q4_1 {
                    block: 32, tiles: 4, planes: &[Plane::CODES_4, Plane::TWO_HALVES], decodes_once: true,
                    weight: |p| Weight::affine(p.half(1), p.bits(0), p.upper_half(1)),
                }
            }
            q5_0 {
                /// 5-bit codes less 16; half scale per 32.
                Q5_0 = Q5_0 {
                    block: 32, tiles: 4, planes: &[Plane::CODES_4, Plane::FIFTH_BIT, Plane::HALF], decodes_once: true,
                    weight: |p| Weight::offset(p.half(2), p.bits(0) + 16 * p.bits(1), 16),
                }
            }
            q5_1 {
                /// 5-bit codes; half scale and half minimum per 32.
                Q5_1 = Q5_1 {
                    block: 32, tiles: 4, planes: &[Plane::CODES_4, Plane::FIFTH_BIT, Plane::TWO_HALVES],
                    decodes_once: true,
                    weight: |p| Weight::affine(p.half(2), p.bits(0) + 16 * p.bits(1), p.upper_half(2)),
                }
            }
            q2_k {
                /// 2-bit codes; 4-bit scale and minimum per 16, half factors of both per 256.
                Q2K = Q2_K {
                    block: 16, tiles: 4, planes: &[Plane::CODES_2, Plane::BYTE, Plane::TWO_FACTORS], decodes_once: true,
                    weight: |p| {
                        let (scale, minimum) = (f64::from(p.bits(1) & 15), f64::from(p.bits(1) >> 4));
                        Weight::affine(p.half(2) * scale, p.bits(0), -p.upper_half(2) * minimum)
                    },
                }
            }
            q3_k {
                /// 3-bit codes less 4; 6-bit scale less 32 per 16, half factor per 256.
                Q3K = Q3_K {
                    block: 16, tiles: 4,
                    planes: &[Plane::CODES_2, Plane::THIRD_BIT, Plane::NIBBLE, Plane::PAIR, Plane::FACTOR],
                    decodes_once: true,
                    weight: |p| {
                        let scale = p.number(2) + 16.0 * p.number(3) - 32.0;
                        Weight::offset(p.half(4) * scale, p.bits(0) + 4 * p.bits(1), 4)
                    },
                }
            }
            q4_k {
                /// 4-bit codes; 6-bit scale and minimum per 32, half factors of both per 256.
                Q4K = Q4_K {
                    block: 32, tiles: 4, planes: &[Plane::CODES_4, Plane::BYTE, Plane::NIBBLE, Plane::TWO_FACTORS],
                    decodes_once: true,
                    weight: |p| {
                        let (scale, minimum) = (p.bits(1) % 64, p.bits(1) / 64 + 4 * p.bits(2));
                        Weight::affine(p.half(3) * f64::from(scale), p.bits(0), -p.upper_half(3) * f64::from(minimum))
                    },
                }
            }
            q5_k {
                /// 5-bit codes, scaled as [`Format::Q4K`].
                Q5K = Q5_K {
                    block: 32, tiles: 4,
                    planes: &[Plane::CODES_4, Plane::FIFTH_BIT, Plane::BYTE, Plane::NIBBLE, Plane::TWO_FACTORS],
                    decodes_once: true,
                    weight: |p| {
                        let (scale, minimum) = (p.bits(2) % 64, p.bits(2) / 64 + 4 * p.bits(3));
                        let code = p.bits(0) + 16 * p.bits(1);
                        Weight::affine(p.half(4) * f64::from(scale), code, -p.upper_half(4) * f64::from(minimum))
                    },
                }
            }
            q6_k {
                /// 6-bit codes less 32; 8-bit scale less 128 per 16, half factor per 256.
                Q6K = Q6_K {
                    block: 16, tiles: 4, planes: &[Plane::CODES_4, Plane::TOP_2_OF_6, Plane::BYTE, Plane::FACTOR],
                    decodes_once: true,
                    weight: |p| Weight::offset(p.half(3) * (p.number(2) - 128.0), p.bits(0) + 16 * p.bits(1), 32),
                }
            }
            iq4_nl {
                /// 4-bit codes of fixed levels; half scale per 32.
                Iq4Nl = IQ4_NL {
                    block: 32, tiles: 4, planes: &[Plane::CODES_4, Plane::HALF], decodes_once: true,
                    weight: |p| Weight::exact(p.half(1) * IQ4_NL[p.bits(0) as usize]),
                }
            }
            iq4_xs {
                /// 4-bit codes of the same levels; 6-bit scale less 32 per 32, half factor per 256.
                Iq4Xs = IQ4_XS {
                    block: 32, tiles: 4, planes: &[Plane::CODES_4, Plane::NIBBLE, Plane::PAIR, Plane::FACTOR],
                    decodes_once: true,
                    weight: |p| {
                        let scale = p.number(1) + 16.0 * p.number(2) - 32.0;
                        Weight::exact(p.half(3) * scale * IQ4_NL[p.bits(0) as usize])
                    },
                }
            }
            iq3_xxs {
                /// Points of a grid of four; signs and 4-bit scale per 32, half factor per 256.
                Iq3Xxs = IQ3_XXS {
                    block: 8, tiles: 4,
                    planes: &[Plane::HALF, Plane::Groups { columns: 32, bits: 32 }, Plane::FACTOR],
                    decodes_once: false,
                    weight: |p| {
                        let point = p.bits(0) >> (p.element / 4 * 8) & 255;
                        let scale = p.half(2) * (f64::from(p.bits(1) >> 28) + 0.5) / 2.0;
                        Weight::signed(p, &grids::IQ3_XXS, point, scale, signs_in(p.bits(1), p))
                    },
                }
            }
            iq3_s {
                /// Points of a grid of four; signs, 4-bit scale per 32, half factor per 256.
                Iq3S = IQ3_S {
                    block: 8, tiles: 4,
                    planes: &[
                        Plane::HALF, Plane::PAIR, Plane::BYTE, Plane::Groups { columns: 32, bits: 4 }, Plane::FACTOR,
                    ],
                    decodes_once: false,
                    weight: |p| {
                        let low = p.bits(0) >> (p.element / 4 * 8) & 255;
                        let ninth = p.bits(1) >> (p.element / 4) & 1;
                        let scale = p.half(4) * (2.0 * p.number(3) + 1.0);
                        Weight::signed(p, &grids::IQ3_S, low + 256 * ninth, scale, p.bits(2))
                    },
                }
            }
            iq2_xxs {
                /// Points of a grid of eight; signs and 4-bit scale per 32, half factor per 256.
                Iq2Xxs = IQ2_XXS {
                    block: 8, tiles: 4,
                    planes: &[Plane::BYTE, Plane::Groups { columns: 32, bits: 32 }, Plane::FACTOR],
                    decodes_once: false,
                    weight: |p| {
                        let scale = p.half(2) * (f64::from(p.bits(1) >> 28) + 0.5) / 4.0;
                        Weight::signed(p, &grids::IQ2_XXS, p.bits(0), scale, signs_in(p.bits(1), p))
                    },
                }
            }
            iq2_xs {
                /// Points of a larger grid of eight with their signs; 4-bit scale per 16, half factor per 256.
                Iq2Xs = IQ2_XS {
                    block: 8, tiles: 4,
                    planes: &[Plane::HALF, Plane::Groups { columns: 16, bits: 4 }, Plane::FACTOR],
                    decodes_once: false,
                    weight: |p| {
                        let scale = p.half(2) * (p.number(1) + 0.5) / 4.0;
                        Weight::signed(p, &grids::IQ2_XS, p.bits(0) % 512, scale, with_eighth(p.bits(0) >> 9))
                    },
                }
            }
            iq2_s {
                /// Points of the largest grid of eight; signs, 4-bit scale per 16, half factor per 256.
                Iq2S = IQ2_S {
                    block: 8, tiles: 4,
                    planes: &[Plane::HALF, Plane::PAIR, Plane::Groups { columns: 16, bits: 4 }, Plane::FACTOR],
                    decodes_once: false,
                    weight: |p| {
                        let point = p.bits(0) % 256 + 256 * p.bits(1);
                        let scale = p.half(3) * (p.number(2) + 0.5) / 4.0;
                        Weight::signed(p, &grids::IQ2_S, point, scale, p.bits(0) >> 8)
                    },
                }
            }
            iq1_s {
                /// Points of a grid of -1, 0 and 1, and an eighth; 3-bit scale and the eighth's sign per 32, half factor per 256.
                Iq1S = IQ1_S {
                    block: 8, tiles: 4, planes: &[Plane::Points { lanes: 4 }, Plane::FACTOR], decodes_once: false,
                    weight: |p| {
                        let number = p.bits(0) >> Plane::POINT_BITS;
                        Weight::shifted(p, p.half(1) * f64::from(2 * (number & 7) + 1), number >> 3)
                    },
                }
            }
            iq1_m {
                /// Points of the same grid, and an eighth of either sign; 3-bit scale per 16, half factor per 256.
                Iq1M = IQ1_M {
                    block: 8, tiles: 4,
                    planes: &[
                        Plane::Points { lanes: 1 },
                        Plane::Split { lanes: 2, bits: 3 },
                        Plane::FACTOR,
                    ],
                    decodes_once: false,
                    weight: |p| {
                        Weight::shifted(p, p.half(2) * f64::from(2 * p.bits(1) + 1), p.bits(0) >> Plane::POINT_BITS)
                    },
                }
            }
            mxfp4 {
                /// E2M1 values; power of two per 32.
                Mxfp4 = MXFP4 {
                    block: 32, tiles: 4, planes: &[Plane::CODES_4, Plane::BYTE], decodes_once: true,
                    weight: |p| Weight::exact(e8m0(p.bits(1)) * e2m1(p.bits(0))),
                }
            }
            mxfp8 {
                /// E4M3 values; power of two per 32.
                Mxfp8 = MXFP8 {
                    block: 32, tiles: 2, planes: &[Plane::CODES_8, Plane::BYTE], decodes_once: true,
                    weight: |p| Weight::exact(e8m0(p.bits(1)) * e4m3(p.bits(0))),
                }
            }
            nvfp4 {
                /// E2M1 values; E4M3 scale per 16, binary32 factor a row.
                Nvfp4 = NVFP4 {
                    block: 16, tiles: 4, planes: &[Plane::CODES_4, Plane::BYTE, Plane::RowFactor], decodes_once: true,
                    weight: |p| Weight::exact(e2m1(p.bits(0)) * e4m3(p.bits(1)) * p.single(2)),
                }
            }
            q1_0 {
                /// Signs; half scale per 128.
                Q1_0 = Q1_0 {
                    block: 128, tiles: 4, planes: &[Plane::Bits, Plane::HALF], decodes_once: false,
                    weight: |p| Weight::sign(p.half(1), p.bits(0)),
                }
            }
            q2_0 {
                /// 2-bit codes less 1; half scale per 64.
                Q2_0 = Q2_0 {
                    block: 64, tiles: 4, planes: &[Plane::CODES_2, Plane::HALF], decodes_once: false,
                    weight: |p| Weight::offset(p.half(1), p.bits(0), 1),
                }
            }
            tq1_0 {
                /// Digits in base 3 less 1, the last five of eight in a byte, the first three in 5 bits; half factor per 256.
                Tq1_0 = TQ1_0 {
                    block: 8, tiles: 4,
                    planes: &[Plane::BYTE, Plane::Split { lanes: 1, bits: 5 }, Plane::FACTOR], decodes_once: false,
                    weight: |p| {
                        let (number, digit) = if p.element < 3 { (p.bits(1), p.element) } else { (p.bits(0), p.element - 3) };
                        Weight::offset(p.half(2), number / 3_u32.pow(digit as u32) % 3, 1)
                    },
                }
            }
            tq2_0 {
                /// 2-bit codes less 1; half factor per 256.
                Tq2_0 = TQ2_0 {
                    block: 128, tiles: 4, planes: &[Plane::CODES_2, Plane::FACTOR], decodes_once: false,
                    weight: |p| Weight::offset(p.half(1), p.bits(0), 1),
                }
            }
            tq2_0_g128 {
                /// 2-bit codes less 1; half scale per 128.
                Tq2_0G128 = TQ2_0_G128 {
                    block: 128, tiles: 4, planes: &[Plane::CODES_2, Plane::HALF], decodes_once: false,
                    weight: |p| Weight::offset(p.half(1), p.bits(0), 1),
                }
            }
            e4m3 {
                /// E4M3 values; binary32 scale per 128.
                E4m3G128 = E4M3_G128 {
                    block: 128, tiles: 2, planes: &[Plane::CODES_8, Plane::Blocks { bits: 32 }], decodes_once: true,
                    weight: |p| Weight::exact(p.single(1) * e4m3(p.bits(0))),
                }
                /// E4M3 values; binary32 scale per 32.
                E4m3G32 = E4M3_G32 {
                    block: 32, tiles: 2, planes: &[Plane::CODES_8, Plane::Blocks { bits: 32 }], decodes_once: true,
                    weight: |p| Weight::exact(p.single(1) * e4m3(p.bits(0))),
                }
            }
        }
    };
}

macro_rules! formats {
    ($($file:ident { $($(#[$doc:meta])* $name:ident = $stored:ident { $($facts:tt)* })* })*) => {
        /// How a matrix of the weights file is packed.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Format {
            $($($(#[$doc])* $name,)*)*
            /// Codes with a scale and a bias per group.
            Affine {
                /// Bits per code.
                bits: usize,
                /// Columns per scale and bias.
                group: usize,
                /// Scales and biases are bfloats rather than halves.
                bf16: bool,
                /// Zero points in place of biases: scale * (code - zero).
                zeros: bool,
            },
        }

        impl Format {
            /// What the list says; `None` for affine formats.
            fn facts(self) -> Option<Facts> {
                Some(match self {
                    $($(Self::$name => Facts { $($facts)* },)*)*
                    Self::Affine { .. } => return None,
                })
            }
        }
    };
}
packed_formats!(formats);

impl Format {
    /// How its rows lie.
    pub fn scheme(self) -> Scheme {
        match (self.facts(), self) {
            (Some(Facts { block, tiles, planes, .. }), _) => Scheme { block, tiles, planes },
            (None, Self::Affine { bits, group, .. }) => {
                let planes: &'static [Plane] = match bits {
                    2 => &[Plane::CODES_2, Plane::TWO_HALVES],
                    3 => &[Plane::CODES_2, Plane::THIRD_BIT, Plane::TWO_HALVES],
                    4 => &[Plane::CODES_4, Plane::TWO_HALVES],
                    5 => &[Plane::CODES_4, Plane::FIFTH_BIT, Plane::TWO_HALVES],
                    6 => &[Plane::CODES_4, Plane::TOP_2_OF_6, Plane::TWO_HALVES],
                    _ => &[Plane::CODES_8, Plane::TWO_HALVES],
                };
                Scheme { block: group, tiles: if bits == 8 { 2 } else { 4 }, planes }
            }
            (None, _) => unreachable!("every format but affine is in the list"),
        }
    }

    /// Whether kernels decode its weights once for all rows of a threadgroup.
    pub fn decodes_once(self) -> bool {
        self.facts().is_none_or(|facts| facts.decodes_once)
    }

    /// The weight that a column's bits stand for.
    pub fn weight(self, fields: &Fields) -> Weight {
        match (self.facts(), self) {
            (Some(facts), _) => (facts.weight)(fields),
            (None, Self::Affine { bits, bf16, zeros, .. }) => {
                let (code, pair) = match bits {
                    3 => (fields.bits(0) + 4 * fields.bits(1), fields.bits(2)),
                    5 | 6 => (fields.bits(0) + 16 * fields.bits(1), fields.bits(2)),
                    _ => (fields.bits(0), fields.bits(1)),
                };
                let number = if bf16 { bfloat } else { half };
                let (scale, second) = (number(pair), number(pair >> 16));
                Weight::affine(scale, code, if zeros { -scale * second } else { second })
            }
            (None, _) => unreachable!("every format but affine is in the list"),
        }
    }
}
