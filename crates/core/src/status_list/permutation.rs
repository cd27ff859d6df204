//! The keyed permutation of the indices of a list: a Feistel network of four rounds of HMAC-SHA-256.

use aws_lc_rs::hmac;

const ROUNDS: u8 = 4;

/// The index of a number below 2^`size`: different numbers have different indices below 2^`size`.
pub(super) fn index(key: &hmac::Key, size: u8, number: u32) -> u32 {
    let half = u32::from(size).div_ceil(2);
    let mask = (1_u32 << half) - 1;
    let mut index = number;
    // A list of an odd size is half of the network's range: an index outside of the list is permuted again.
    loop {
        let (mut left, mut right) = (index >> half, index & mask);
        for round in 0..ROUNDS {
            let mut message = hmac::Context::with_key(key);
            message.update(&[round]);
            message.update(&right.to_be_bytes());
            let tag = message.sign();
            let mixed = tag.as_ref().iter().take(4).fold(0_u32, |sum, byte| sum << 8 | u32::from(*byte));
            (left, right) = (right, left ^ (mixed & mask));
        }
        index = left << half | right;
        if index >> size == 0 {
            return index;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s2_each_number_has_another_index_and_neighbours_are_far_apart() {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &[7; 32]);
        for size in [10, 11] {
            let mut seen = vec![false; 1 << size];
            let indices: Vec<_> = (0..1 << size).map(|number| index(&key, size, number)).collect();
            indices.iter().for_each(|index| assert!(!std::mem::replace(&mut seen[*index as usize], true)));
            let ordered = indices.windows(2).filter(|pair| pair[0] < pair[1]).count();
            let all = indices.len();
            assert!((all * 2 / 5..all * 3 / 5).contains(&ordered), "the order shows nothing: {ordered} of {all}");
        }
        let other = hmac::Key::new(hmac::HMAC_SHA256, &[8; 32]);
        let same = (0..1024).filter(|number| index(&key, 10, *number) == index(&other, 10, *number)).count();
        assert!(same < 20, "another list has another permutation: {same}");
    }
}
