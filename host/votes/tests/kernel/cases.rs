//! Cases for the kernels: good signatures, and every way we know of making one that verifiers disagree on.
//!
//! Relies on `curve25519-dalek` to craft points of small and mixed order. Promises the same cases in every
//! run. Knows no verifier but the rule.

use curve25519_dalek::EdwardsPoint;
use curve25519_dalek::constants::{ED25519_BASEPOINT_POINT, EIGHT_TORSION};
use curve25519_dalek::scalar::Scalar;
use ed25519_dalek::{Signer as _, SigningKey};
use num_bigint::BigUint;
use quorate_crypto::verify_strict;
use sha2::{Digest as _, Sha512};

/// The encoding of the base point.
pub const BASE_POINT: [u8; 32] = {
    let mut bytes = [0x66; 32];
    bytes[0] = 0x58;
    bytes
};

/// Message lengths around the bounds of SHA-512's blocks, R and A included, and around none.
const LENGTHS: [usize; 17] = [104, 0, 1, 7, 46, 47, 48, 49, 63, 64, 104, 175, 176, 177, 192, 303, 304];

/// The group's order.
pub fn order() -> BigUint {
    BigUint::from(2u8).pow(252) + 27_742_317_777_372_353_535_851_937_790_883_648_493_u128
}

/// Numbers that look random and are the same in every run (SplitMix64, Steele, Lea and Flood 2014).
pub struct Numbers(u64);

impl Numbers {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.next() as u8)
    }
}

/// One key, message and signature.
#[derive(Clone, Debug)]
pub struct Case {
    pub public: [u8; 32],
    pub message: Vec<u8>,
    pub signature: [u8; 64],
    /// Whether the signer's table serves this case.
    pub uses_signers_key: bool,
}

impl Case {
    /// What the rule says.
    pub fn expected(&self) -> bool {
        verify_strict(&self.public, &self.message, &self.signature)
    }
}

/// Who signs: a scalar and a public key that may have a part of small order.
pub struct Signer {
    key: SigningKey,
    scalar: Scalar,
    torsion: EdwardsPoint,
    pub public: [u8; 32],
}

/// Forty honest keys, and twenty-four whose public key has a part of small order.
pub fn signers() -> Vec<Signer> {
    let signer = |number: usize| {
        let key = SigningKey::from_bytes(&Numbers::new(number as u64 + 1_000).bytes());
        let torsion = EIGHT_TORSION[if number < 40 { 0 } else { number % 8 }];
        let scalar = key.to_scalar();
        let public = (ED25519_BASEPOINT_POINT * scalar + torsion).compress().to_bytes();
        Signer { key, scalar, torsion, public }
    };
    (0..64).map(signer).collect()
}

/// Every encoding of a point of small order, canonical and not.
fn small_order() -> Vec<[u8; 32]> {
    let mut all: Vec<[u8; 32]> = EIGHT_TORSION.iter().map(|point| point.compress().to_bytes()).collect();
    let mut other = |low: u8, rest: u8, high: u8| {
        let mut bytes = [rest; 32];
        (bytes[0], bytes[31]) = (low, high);
        all.push(bytes);
    };
    // y = p and p + 1 for 0 and 1, and x = 0 with the sign of a negative number.
    for (low, rest, high) in [(0xed, 0xff, 0x7f), (0xed, 0xff, 0xff), (0xee, 0xff, 0x7f), (0xee, 0xff, 0xff)]
    {
        other(low, rest, high);
    }
    other(1, 0, 0x80);
    other(0xec, 0xff, 0xff);
    all
}

/// `count` cases of one signer, in an order that mixes good and bad.
pub fn of(signer: &Signer, seed: u64, count: usize, signers: &[Signer]) -> Vec<Case> {
    let mut numbers = Numbers::new(seed);
    (0..count).map(|_| one(signer, &mut numbers, signers)).collect()
}

fn one(signer: &Signer, numbers: &mut Numbers, signers: &[Signer]) -> Case {
    let length = LENGTHS[numbers.below(LENGTHS.len())];
    let message: Vec<u8> = (0..length).map(|_| numbers.next() as u8).collect();
    let mut case = signer.sign(&message, numbers);
    let bit = 1 << numbers.below(8);
    match numbers.below(16) {
        0..=4 => {}
        5 => case.signature[numbers.below(32)] ^= bit,
        6 => case.signature[32 + numbers.below(32)] ^= bit,
        7 if !case.message.is_empty() => {
            let at = numbers.below(case.message.len());
            case.message[at] ^= bit;
        }
        7 => case.message.push(0),
        8 => {
            case.public = signers[numbers.below(signers.len())].public;
            case.uses_signers_key = case.public == signer.public;
        }
        9 => {
            // The same s modulo L, up to the greatest that fits 32 bytes.
            let s = BigUint::from_bytes_le(&case.signature[32..]) + order() * (1 + numbers.below(15));
            case.set_s(&s);
        }
        10 => {
            let all = small_order();
            case.signature[..32].copy_from_slice(&all[numbers.below(all.len())]);
            if numbers.below(2) == 0 {
                case.signature[32..].fill(0);
            }
        }
        11 => signer.sign_as_small_order(&mut case, numbers),
        12 => case.signature = numbers.bytes(),
        13 => {
            let edges = [BigUint::from(0u8), 1u8.into(), order() - 1u8, order(), order() + 1u8];
            let wide = [252, 253, 254, 255].map(|exponent| BigUint::from(2u8).pow(exponent));
            let all: Vec<_> = edges.into_iter().chain(wide).collect();
            case.set_s(&all[numbers.below(all.len())]);
        }
        14 => {
            // R plus a part of small order, signed as such: right times the cofactor only.
            let torsion = EIGHT_TORSION[numbers.below(8)];
            case = signer.sign_with(&message, numbers, torsion);
        }
        _ => {
            // y from p to 2^255 - 1, of which most are no canonical point.
            let mut bytes = [0xff; 32];
            bytes[0] = 0xed + numbers.below(19) as u8;
            bytes[31] = if numbers.below(2) == 0 { 0x7f } else { 0xff };
            if numbers.below(2) == 0 {
                case.signature[..32].copy_from_slice(&bytes);
            } else {
                (case.public, case.uses_signers_key) = (bytes, false);
            }
        }
    }
    case
}

impl Case {
    fn set_s(&mut self, s: &BigUint) {
        let mut bytes = s.to_bytes_le();
        bytes.resize(32, 0);
        self.signature[32..].copy_from_slice(&bytes);
    }
}

impl Signer {
    fn sign(&self, message: &[u8], numbers: &mut Numbers) -> Case {
        if self.torsion == EIGHT_TORSION[0] {
            let signature = self.key.sign(message).to_bytes();
            return Case {
                public: self.public,
                message: message.to_vec(),
                signature,
                uses_signers_key: true,
            };
        }
        self.sign_with(message, numbers, EIGHT_TORSION[0])
    }

    /// Signs with R = r B + `torsion`. Valid without the cofactor if the parts of small order cancel out.
    fn sign_with(&self, message: &[u8], numbers: &mut Numbers, torsion: EdwardsPoint) -> Case {
        let nonce = Scalar::from_bytes_mod_order(numbers.bytes());
        let r = (ED25519_BASEPOINT_POINT * nonce + torsion).compress().to_bytes();
        let s = nonce + challenge(&r, &self.public, message) * self.scalar;
        Case {
            public: self.public,
            message: message.to_vec(),
            signature: join(&r, &s.to_bytes()),
            uses_signers_key: true,
        }
    }

    /// A key of small order, for which s = r is a signature whenever the challenge is a multiple of its order.
    fn sign_as_small_order(&self, case: &mut Case, numbers: &mut Numbers) {
        let all = small_order();
        (case.public, case.uses_signers_key) = (all[numbers.below(all.len())], false);
        let nonce = Scalar::from_bytes_mod_order(numbers.bytes());
        let r = (ED25519_BASEPOINT_POINT * nonce).compress().to_bytes();
        case.signature = join(&r, &nonce.to_bytes());
    }
}

fn challenge(r: &[u8; 32], public: &[u8; 32], message: &[u8]) -> Scalar {
    let hash = Sha512::new().chain_update(r).chain_update(public).chain_update(message).finalize();
    Scalar::from_bytes_mod_order_wide(&hash.into())
}

fn join(r: &[u8; 32], s: &[u8; 32]) -> [u8; 64] {
    std::array::from_fn(|at| if at < 32 { r[at] } else { s[at - 32] })
}

/// The published vectors with their verdicts; a signature of another length than 64 bytes is left out, since
/// no kernel can be given one.
pub fn vectors() -> Vec<(bool, Case)> {
    let rfc8032 = include_str!("../../../crypto/tests/vectors/rfc8032.txt");
    let judged = [
        include_str!("../../../crypto/tests/vectors/wycheproof.txt"),
        include_str!("../../../crypto/tests/vectors/speccheck.txt"),
    ];
    let bytes = |hex: &str| -> Vec<u8> {
        let hex = if hex == "-" { "" } else { hex };
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    };
    let case = |fields: &[&str]| {
        let signature = bytes(fields[2]).try_into().ok()?;
        let (public, message) = (bytes(fields[0]).try_into().unwrap(), bytes(fields[1]));
        Some(Case { public, message, signature, uses_signers_key: true })
    };
    let lines = |text: &'static str| {
        text.lines().filter(|line| !line.starts_with('#')).map(|line| line.split(' ').collect::<Vec<_>>())
    };
    let good = lines(rfc8032).filter_map(|fields| Some((true, case(&fields[1..4])?)));
    let judged = judged.into_iter().flat_map(lines);
    good.chain(judged.filter_map(|fields| Some((fields[0] == "1", case(&fields[1..4])?)))).collect()
}
