//! Steps of a denoising sampler as decisions with a density (Song et al. 2021, "Denoising Diffusion Implicit Models").

use candle_core::{D, Tensor, bail};

/// How a step's log-density is made of its dimensions'.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reduction {
    /// Their mean, which losses' constants are chosen for.
    #[default]
    Mean,
    /// Their sum: the density of the whole latent.
    Sum,
}

/// One step of the schedule, from noise level t to the one before.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DdimStep {
    /// Share of the signal's variance at t, in (0, 1).
    pub alpha_prod: f64,
    /// Share at the level before, in (0, 1): at 1 there would be no noise left to have a density.
    pub alpha_prod_prev: f64,
    /// Share of the noise that is fresh, in (0, 1].
    pub eta: f64,
}

/// Density of a step.
#[derive(Clone, Debug)]
pub struct StepDensity {
    /// Of the next latent, `[B, N]`.
    pub mean: Tensor,
    /// Deviation of each dimension.
    pub std: f64,
    /// Log-density of the latent that was sampled, `[B]`, nats.
    pub log_prob: Tensor,
}

impl DdimStep {
    /// `eta sqrt((1 - ā') / (1 - ā) · (1 - ā / ā'))`.
    pub fn std(self) -> f64 {
        let variance = (1.0 - self.alpha_prod_prev) / (1.0 - self.alpha_prod) * (1.0 - self.alpha_prod / self.alpha_prod_prev);
        self.eta * variance.sqrt()
    }

    /// Density of the step that led from `latents` to `next`.
    ///
    /// # Shapes
    /// - `latents`, `noise`, `next`: `[B, N]`. Gradient flows to the predicted noise; the next latent is what was sampled, a constant.
    ///
    /// # Errors
    /// Those of candle; a step without fresh noise, which has no density.
    pub fn density(
        self,
        latents: &Tensor,
        noise: &Tensor,
        next: &Tensor,
        reduction: Reduction,
    ) -> candle_core::Result<StepDensity> {
        let std = self.std();
        if std.is_nan() || std <= 0.0 {
            bail!("a step needs fresh noise to have a density: its deviation is {std} at eta {}", self.eta);
        }
        let clean = ((latents - (noise * (1.0 - self.alpha_prod).sqrt())?)? / self.alpha_prod.sqrt())?;
        let direction = (1.0 - self.alpha_prod_prev - std * std).max(0.0).sqrt();
        let mean = ((clean * self.alpha_prod_prev.sqrt())? + (noise * direction)?)?;
        let scaled = ((next.detach() - &mean)? / std)?;
        let by_dimension = ((scaled.sqr()? * -0.5)? - (std.ln() + (2.0 * std::f64::consts::PI).ln() / 2.0))?;
        let log_prob = match reduction {
            Reduction::Mean => by_dimension.mean(D::Minus1)?,
            Reduction::Sum => by_dimension.sum(D::Minus1)?,
        };
        Ok(StepDensity { mean, std, log_prob })
    }
}

/// Guidance without a classifier (Ho and Salimans 2022): `unconditional + scale (conditional - unconditional)`.
pub fn guided_noise(unconditional: &Tensor, conditional: &Tensor, scale: f64) -> candle_core::Result<Tensor> {
    unconditional + ((conditional - unconditional)? * scale)?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, check_gradients, matrix, numbers, vector};

    const STEP: DdimStep = DdimStep { alpha_prod: 0.6, alpha_prod_prev: 0.75, eta: 0.8 };

    #[test]
    fn density_is_greatest_at_the_mean() {
        let (latents, noise) = (matrix([[0.3, -1.0]]), matrix([[0.1, 0.7]]));
        let mean = STEP.density(&latents, &noise, &latents, Reduction::Sum).unwrap().mean;
        let at = STEP.density(&latents, &noise, &mean, Reduction::Mean).unwrap();
        assert_close(&numbers(&at.log_prob), &[-at.std.ln() - (2.0 * std::f64::consts::PI).ln() / 2.0]);
        let clean: f64 = (0.3 - 0.4f64.sqrt() * 0.1) / 0.6f64.sqrt();
        assert_close(&numbers(&mean)[..1], &[0.75f64.sqrt() * clean + (0.25 - at.std * at.std).sqrt() * 0.1]);
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        let (latents, next) = (matrix([[0.3, -1.0]]), matrix([[0.2, 0.5]]));
        for reduction in [Reduction::Mean, Reduction::Sum] {
            check_gradients(&[matrix([[0.1, 0.7]])], 1e-7, |noise| {
                STEP.density(&latents, &noise[0], &next, reduction)?.log_prob.sum_all()
            });
        }
    }

    #[test]
    fn steps_without_fresh_noise_are_refused() {
        let x = matrix([[0.0]]);
        for step in [DdimStep { eta: 0.0, ..STEP }, DdimStep { alpha_prod_prev: 1.0, ..STEP }] {
            assert!(step.density(&x, &x, &x, Reduction::Mean).is_err());
        }
    }

    #[test]
    fn guidance_of_scale_one_is_conditional() {
        let (free, conditional) = (vector(&[1.0, 2.0]), vector(&[3.0, -1.0]));
        assert_close(&numbers(&guided_noise(&free, &conditional, 1.0).unwrap()), &[3.0, -1.0]);
        assert_close(&numbers(&guided_noise(&free, &conditional, 5.0).unwrap()), &[11.0, -13.0]);
    }
}
