//! Lists of groups of different sizes, such as the completions of each prompt: functions over samples see them flat.

/// The values of all groups, one after the other.
pub fn flatten<T: Clone>(groups: &[Vec<T>]) -> Vec<T> {
    groups.concat()
}

/// Each member's values flat: `[member][group][completion]` as `[member][sample]`.
pub fn flatten_members<T: Clone>(members: &[Vec<Vec<T>>]) -> Vec<Vec<T>> {
    members.iter().map(|groups| flatten(groups)).collect()
}

/// Values of samples in groups of the sizes of others.
pub fn regroup<T: Clone, U>(values: &[T], like: &[Vec<U>]) -> Vec<Vec<T>> {
    let mut rest = values;
    let mut take = |group: &Vec<U>| {
        let (these, others) = rest.split_at(group.len());
        rest = others;
        these.to_vec()
    };
    like.iter().map(&mut take).collect()
}

/// [`regroup`] in the sizes of the first member's groups.
pub fn regroup_members<T: Clone, U>(values: &[T], members: &[Vec<Vec<U>>]) -> Vec<Vec<T>> {
    members.first().map_or_else(Vec::new, |groups| regroup(values, groups))
}
