//! The plain kernels of mixtures, and the faults.

use forge_runtime::verify::*;

use crate::families::{BY_ROW, Family, GAMMA, INPUT, ONCE, ONE_ROW, SOME_ROWS, STEP, WEIGHTS, check, spec};

const EXPERTS: usize = 4;
const CHOSEN: usize = 2;

const ROUTING: Routing = Routing {
    experts: EXPERTS,
    chosen: CHOSEN,
    scores: Scores::SoftmaxOfChosen,
    groups: None,
    normalised: None,
    scale: 1.5,
};
const GROUPS: Routing = Routing {
    scores: Scores::Sigmoid,
    groups: Some(Groups { count: 2, chosen: 1, judged_by: GroupScore::BestTwo }),
    normalised: Some(0.25),
    scale: 2.0,
    ..ROUTING
};
const MATRIX: Matrix = Matrix { format: Format::F32, rows: 8, cols: 32 };
const UP: ExpertsUp = ExpertsUp {
    matrices: &[MATRIX],
    experts: EXPERTS,
    chosen: CHOSEN,
    width: 1,
    of: ExpertsOf::Rows(ROUTING),
    shared: None,
    activation: Activation::Silu,
    norm_eps: Some(1e-5),
    half_operands: false,
};
const DOWN: ExpertsDown = ExpertsDown {
    matrix: MATRIX,
    experts: EXPERTS,
    chosen: CHOSEN,
    shared: None,
    results: ExpertResults::Summed { factor: 0.5 },
};

const LOGITS: Argument = Argument::read(Role::RouterLogits, Data::Words(EXPERTS));
const EXPERTS_LEFT: Argument = Argument::write(Role::Experts, Data::Words(CHOSEN));
const WEIGHTS_LEFT: Argument = Argument::write(Role::ExpertWeights, Data::Words(CHOSEN));
const EXPERTS_GIVEN: Argument = Argument::read(Role::Experts, Data::Words(CHOSEN));
const WEIGHTS_GIVEN: Argument = Argument::read(Role::ExpertWeights, Data::Words(CHOSEN));
const PAIRS: Argument = Argument::read(Role::Pairs, Data::Words(CHOSEN));
const TILES: Argument = Argument::read(Role::Tiles, Data::Words(3 * CHOSEN));
const BIASES: Argument = Argument::read(Role::Bias, Data::Tensor("gamma"));
/// As many tiles as there may be.
const BY_TILE: [Dim; 2] = [Dim::Indirect { per_row: CHOSEN, most: 1000 }, Dim::Const(1)];

pub static MIXTURES: Family = Family {
    slots: 1,
    metal: include_str!("../fixtures/plain_kernels/mixtures.metal"),
    specs: &[
        spec("route"),
        spec("route_groups"),
        spec("sort_experts"),
        spec("gate_up"),
        spec("gate_up_tile"),
        spec("down"),
        spec("down_tile"),
        spec("sum"),
    ],
    checks: &[
        check(
            0,
            SOME_ROWS,
            BY_ROW,
            Operation::Route { routing: ROUTING, shared: None },
            &[LOGITS, EXPERTS_LEFT, WEIGHTS_LEFT],
        ),
        check(
            1,
            // Enough rows for one whose groups another rule would judge otherwise.
            &[1, 7, 64],
            BY_ROW,
            Operation::Route { routing: GROUPS, shared: None },
            &[LOGITS, Argument::read(Role::SelectionBias, Data::Tensor("gamma")), EXPERTS_LEFT, WEIGHTS_LEFT],
        ),
        check(
            2,
            SOME_ROWS,
            ONCE,
            Operation::SortExperts(SortExperts { experts: EXPERTS, chosen: CHOSEN, tile: 3, columns: [5, 7] }),
            &[
                EXPERTS_GIVEN,
                Argument::write(Role::Pairs, Data::Words(CHOSEN)),
                Argument::write(Role::Tiles, Data::Words(3 * CHOSEN)),
                Argument::write(Role::Threadgroups, Data::Words(6)),
                STEP,
            ],
        ),
        check(
            3,
            SOME_ROWS,
            BY_ROW,
            Operation::ExpertsUp(UP),
            &[
                WEIGHTS,
                INPUT,
                Argument::read(Role::InputSums, Data::Words(2)),
                LOGITS,
                EXPERTS_LEFT,
                WEIGHTS_LEFT,
                Argument::write(Role::Y, Data::Words(CHOSEN)),
            ],
        ),
        check(
            4,
            SOME_ROWS,
            BY_TILE,
            Operation::ExpertsUp(ExpertsUp {
                matrices: &[MATRIX, MATRIX],
                width: 2,
                of: ExpertsOf::Tiles(3),
                norm_eps: None,
                activation: Activation::ClampedSwiglu { alpha: 1702, limit: 500 },
                ..UP
            }),
            &[
                WEIGHTS,
                Argument::read(Role::Weights1, Data::Tensor("other")),
                BIASES,
                INPUT,
                PAIRS,
                TILES,
                Argument::write(Role::Y, Data::Words(2 * CHOSEN)),
            ],
        ),
        check(
            5,
            ONE_ROW,
            ONCE,
            Operation::ExpertsDown(DOWN),
            &[
                WEIGHTS,
                BIASES,
                Argument::read(Role::Input, Data::Words(32 * CHOSEN)),
                EXPERTS_GIVEN,
                WEIGHTS_GIVEN,
                Argument::update(Role::X, Data::Words(2)),
                GAMMA,
                Argument::write(Role::Scaled, Data::Words(2)),
                Argument::write(Role::Sums, Data::Words(1)),
            ],
        ),
        check(
            6,
            SOME_ROWS,
            BY_TILE,
            Operation::ExpertsDown(ExpertsDown { results: ExpertResults::Tiles(3), ..DOWN }),
            &[
                WEIGHTS,
                Argument::read(Role::Input, Data::Words(32 * CHOSEN)),
                PAIRS,
                TILES,
                Argument::write(Role::Y, Data::Words(2 * CHOSEN)),
            ],
        ),
        check(
            7,
            SOME_ROWS,
            BY_ROW,
            Operation::ExpertsSum { width: 4, chosen: CHOSEN, shared: false, factor: 0.5 },
            &[
                Argument::read(Role::Input, Data::Words(4 * CHOSEN)),
                WEIGHTS_GIVEN,
                Argument::update(Role::X, Data::Words(4)),
            ],
        ),
    ],
    faults: &[
        // The second best twice, the scale left out.
        (
            "choose(router_logits + row * 4, experts + row * 2, expert_weights + row * 2);\n}",
            "choose(router_logits + row * 4, experts + row * 2, expert_weights + row * 2);\n    experts[row * 2] = experts[row * 2 + 1];\n}",
            "route",
        ),
        (
            "choose(router_logits + row * 4, experts + row * 2, expert_weights + row * 2);\n}",
            "choose(router_logits, experts + row * 2, expert_weights + row * 2);\n}",
            "route",
        ),
        // The bias in the weights, or not in the choice; no groups; the sum alone; the scale before it.
        (
            "expert_weights[row * 2] = 2.0f * scores[first] / sum",
            "expert_weights[row * 2] = 2.0f * keys[first] / sum",
            "route_groups",
        ),
        ("keys[i] = scores[i] + selection_bias[i]", "keys[i] = scores[i]", "route_groups"),
        ("second ? 3u : 12u", "0u", "route_groups"),
        ("keys[2] + keys[3] > keys[0] + keys[1]", "max(keys[2], keys[3]) > max(keys[0], keys[1])", "route_groups"),
        ("+ scores[next] + 0.25f", "+ scores[next]", "route_groups"),
        // A tile of two experts, of too many pairs; the other grid's columns.
        ("pair < 2 * step.rows", "pair < step.rows", "sort_experts"),
        ("tiles[3 * count + 1] = first;", "tiles[3 * count + 1] = first + 1;", "sort_experts"),
        ("grid == 0 ? 5 : 7", "grid == 0 ? 7 : 5", "sort_experts"),
        // Up for gate, the first expert for all, no norm of the other rows.
        ("expert + 4);", "expert);", "gate_up"),
        ("const uint expert = experts[row * 2 + place];", "const uint expert = experts[row * 2];", "gate_up"),
        ("(input_sums[row * 2] + input_sums[row * 2 + 1])", "(input_sums[0] + input_sums[1])", "gate_up"),
        ("(1.0f + precise::exp(-1.702f * gate))", "(1.0f + precise::exp(-gate))", "gate_up_tile"),
        // The biases of other rows, or none; no limit, no one more.
        ("at) + bias[8 + at]", "at) + bias[at]", "gate_up_tile"),
        ("at) + bias[at], 0.5f)", "at), 0.5f)", "gate_up_tile"),
        ("bias[at], 0.5f)", "bias[at], 2.0f)", "gate_up_tile"),
        ("-0.5f, 0.5f)", "-2.0f, 2.0f)", "gate_up_tile"),
        ("(up + 1.0f)", "up", "gate_up_tile"),
        ("product(weights, input + place * 32, at) + bias[at])", "product(weights, input + place * 32, at))", "down"),
        ("input + place * 32, at) + bias[at])", "input + place * 32, at)) + bias[at]", "down"),
        ("input + pair / 2 * 32", "input + pair * 32 / 4 * 2", "gate_up_tile"),
        ("const uint at = tiles[3 * tile] * 2 + line;", "const uint at = tiles[3 * tile] + line;", "gate_up_tile"),
        ("sum += expert_weights[place] *", "sum +=", "down"),
        ("input + place * 32, at)", "input, at)", "down"),
        ("x[i] + 0.5f * sum", "x[i] + sum", "down"),
        ("scaled[i] = value * gamma[i]", "scaled[i] = value", "down"),
        ("product(weights, input + pair * 32, tiles", "product(weights, input + pair / 2 * 32, tiles", "down_tile"),
        ("tiles[3 * tile] * 2 + i", "i", "down_tile"),
        ("input[row * 8 + 4 + i]", "input[row * 8 + i]", "sum"),
        ("+= 0.5f * (first", "= 0.5f * (first", "sum"),
    ],
};
