//! How is an answer kept from saying the same again? Tokens that would go on repeating it become less likely.

/// Tokens that may be said again before going on costs anything: marks of citations, telephone numbers and turns of phrase are
/// shorter, and a loop is caught in its second or, when it is shorter itself, in its first rounds. Longer addresses and account
/// numbers that an answer has to say twice are what this can spoil.
const ALLOWED: usize = 16;
/// By how many times going on costs more with each further token, as text-generation-webui, where this comes from, has it.
const GROWTH: f32 = 1.75;
/// Tokens beyond the allowed ones of which the cost still grows: at the usual weight that is above 100 nats.
const MOST: usize = 9;

/// For tokens that would lengthen a sequence that the answer says a second time: the nats that they lose, by token. After
/// "don't repeat yourself" (DRY) sampling: `multiplier` · 1.75^(n − 16) for a repetition of n tokens, nothing below 16.
pub(super) fn repeating(drawn: &[u32], multiplier: f32) -> Vec<(u32, f32)> {
    let mut costs: Vec<(u32, f32)> = Vec::new();
    if multiplier <= 0.0 {
        return costs;
    }
    for (at, &next) in drawn.iter().enumerate().skip(ALLOWED) {
        let same = drawn[..at].iter().rev().zip(drawn.iter().rev()).take_while(|(one, other)| one == other);
        // Counted no further than the cost grows, so that a loop costs no more time than anything else.
        let length = same.take(ALLOWED + MOST).count();
        if length < ALLOWED {
            continue;
        }
        let growth = i32::try_from(length - ALLOWED).unwrap_or(i32::MAX);
        let cost = multiplier * GROWTH.powi(growth);
        match costs.iter_mut().find(|(token, _)| *token == next) {
            Some((_, known)) => *known = known.max(cost),
            None => costs.push((next, cost)),
        }
    }
    costs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn going_on_with_what_was_said_costs_more_with_every_token() {
        let said: Vec<u32> = (0..30).collect();
        let after = |again: usize| repeating(&[said.as_slice(), &said[..again]].concat(), 0.8);
        assert!(after(15).is_empty());
        assert_eq!(after(16), [(16, 0.8)]);
        let (token, cost) = after(19)[0];
        assert!((token, after(19).len()) == (19, 1) && (cost - 0.8 * 1.75f32.powi(3)).abs() < 1e-4, "{cost}");
        // Another word breaks the repetition off.
        assert!(repeating(&[said.as_slice(), &said[..20], &[99]].concat(), 0.8).is_empty());
        assert!(repeating(&[said.as_slice(), &said[..20]].concat(), 0.0).is_empty());
    }

    #[test]
    fn of_two_ways_to_go_on_each_has_its_own_cost_and_a_loop_the_greatest() {
        let said: Vec<u32> = (10..26).collect();
        let both = [said.as_slice(), &[1], &said, &[2], &said].concat();
        // What stands before the 1 and before the 2 is alike for sixteen tokens each, not for more.
        assert_eq!(repeating(&both, 1.0), [(1, 1.0), (2, 1.0)]);
        let [(token, cost)] = repeating(&[5; 300], 0.8)[..] else { panic!("one token") };
        assert!(token == 5 && (cost - 0.8 * 1.75f32.powi(9)).abs() < 1e-2, "{cost}");
        assert!(repeating(&[5; 16], 0.8).is_empty());
    }
}
