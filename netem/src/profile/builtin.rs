//! The profiles of `netem/profiles/`, within the program: a benchmark needs no checkout.

macro_rules! profiles {
    ($($name:literal)*) => {
        /// Name and text.
        pub(super) const PROFILES: &[(&str, &str)] = &[
            $(($name, include_str!(concat!("../../profiles/", $name, ".toml"))),)*
        ];
    };
}

profiles! {
    "ideal"
    "lan"
    "metro"
    "wan"
    "wan-loss0.1"
    "wan-loss1"
    "wan-loss3"
    "wan-burst"
    "wan-bloat"
    "wan-shallow"
    "wan-jitter"
    "wan-jitter-correlated"
    "wan-jitter-loss1"
    "wan-reorder"
    "wan-halved"
    "transcontinental"
    "satellite"
    "lte"
    "wifi-bad"
    "blackhole"
    "shared"
}
