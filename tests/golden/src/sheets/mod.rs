//! Operations by method: a module for each method, and the list of them.

use crate::case::{Operation, Sheet};

mod layers;
mod s01_online_iterative_rlhf;
mod s02_basereward;
mod s03_dpa;
mod s04_pairwise_rl;
mod s05_reward_robust_brme;
mod s06_reward_calibration_ppo_m_c;
mod s07_secrets_rlhf_2;
mod s08_constrained_rlhf;
mod s09_domain_knowledge_reward;
mod s10_seq2seq_reward;
mod s11_armorm;
mod s12_reward_ensembles;
mod s13_daa_overoptimisation;
mod s14_rewardmath;
mod s15_tool_augmented_rm;
mod s16_secrets_rlhf_ppo_max;
mod s17_raft;
mod s18_reward_topology_tree;
mod s19_openrubrics;
mod s20_rewardanything;
mod s21_reward_consistency;
mod s22_dpo_implicit_rm;
mod s23_think_rm;
mod s24_fact_rlhf;
mod s25_rm_r1;
mod s26_polar;
mod s27_dpo;
mod s28_d3po;
mod s29_maxmin_rlhf;
mod s30_reward_shaping_par;
mod s31_salmon;
mod s32_rewardbench_2;
mod s33_goal_conditioned_rm;
mod s34_branch_and_rethink_rm;
mod s35_helpsteer2_steerlm2;
mod s36_rpo_sft_regularizer;
mod s37_skywork_reward_v2;
mod s38_micro_mixture_routing;
mod s39_teacher_hacking;
mod s40_pf_ppo;
mod s41_mm_rlhf;
mod s42_cgpo_mixture_of_judges;
mod s43_online_self_preferring;
mod s44_vpo;
mod s45_rlhf_generalisation_diversity;
mod s46_dr_po;
mod s47_fine_grained_rlhf;
mod s48_t_reg;
mod s49_mapl;
mod s51_spo_preference_degree;
mod s52_plug_and_play_judges;
mod s53_heron;
mod s54_superhf;
mod s55_health_text_simplification;
mod s56_vpl;

/// Every method that has operations here.
pub const SHEETS: &[Sheet] = &[
    s01_online_iterative_rlhf::SHEET,
    s02_basereward::SHEET,
    s03_dpa::SHEET,
    s04_pairwise_rl::SHEET,
    s05_reward_robust_brme::SHEET,
    s06_reward_calibration_ppo_m_c::SHEET,
    s07_secrets_rlhf_2::SHEET,
    s08_constrained_rlhf::SHEET,
    s09_domain_knowledge_reward::SHEET,
    s10_seq2seq_reward::SHEET,
    s11_armorm::SHEET,
    s12_reward_ensembles::SHEET,
    s13_daa_overoptimisation::SHEET,
    s14_rewardmath::SHEET,
    s15_tool_augmented_rm::SHEET,
    s16_secrets_rlhf_ppo_max::SHEET,
    s17_raft::SHEET,
    s18_reward_topology_tree::SHEET,
    s19_openrubrics::SHEET,
    s20_rewardanything::SHEET,
    s21_reward_consistency::SHEET,
    s22_dpo_implicit_rm::SHEET,
    s23_think_rm::SHEET,
    s24_fact_rlhf::SHEET,
    s25_rm_r1::SHEET,
    s26_polar::SHEET,
    s27_dpo::SHEET,
    s28_d3po::SHEET,
    s29_maxmin_rlhf::SHEET,
    s30_reward_shaping_par::SHEET,
    s31_salmon::SHEET,
    s32_rewardbench_2::SHEET,
    s33_goal_conditioned_rm::SHEET,
    s34_branch_and_rethink_rm::SHEET,
    s35_helpsteer2_steerlm2::SHEET,
    s36_rpo_sft_regularizer::SHEET,
    s37_skywork_reward_v2::SHEET,
    s38_micro_mixture_routing::SHEET,
    s39_teacher_hacking::SHEET,
    s40_pf_ppo::SHEET,
    s41_mm_rlhf::SHEET,
    s42_cgpo_mixture_of_judges::SHEET,
    s43_online_self_preferring::SHEET,
    s44_vpo::SHEET,
    s45_rlhf_generalisation_diversity::SHEET,
    s46_dr_po::SHEET,
    s47_fine_grained_rlhf::SHEET,
    s48_t_reg::SHEET,
    s49_mapl::SHEET,
    s51_spo_preference_degree::SHEET,
    s52_plug_and_play_judges::SHEET,
    s53_heron::SHEET,
    s54_superhf::SHEET,
    s55_health_text_simplification::SHEET,
    s56_vpl::SHEET,
];

/// The operation of a method; None where there is none of that name.
pub fn find(method: &str, operation: &str) -> Option<Operation> {
    let sheet = SHEETS.iter().find(|sheet| sheet.method == method)?;
    sheet.operations.iter().find(|(name, _)| *name == operation).map(|&(_, operation)| operation)
}
