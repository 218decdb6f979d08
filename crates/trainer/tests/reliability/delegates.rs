//! Executors around another, of which they change a little.

/// The methods of an executor that a field `inner` answers, for whoever wraps one and leaves them as they are.
macro_rules! inner_answers {
    () => {
        fn network(&self) -> &bninception_engine::model::Network {
            self.inner.network()
        }

        fn describe(&self) -> String {
            self.inner.describe()
        }

        fn store(
            &mut self,
            to: &mut bninception_engine::ModelState,
        ) -> Result<(), bninception_engine::EngineError> {
            self.inner.store(to)
        }

        fn join_norm(
            &mut self,
            norm: &mut dyn bninception_engine::NormExchange,
        ) -> Result<(), bninception_engine::EngineError> {
            self.inner.join_norm(norm)
        }

        fn store_logits(
            &mut self,
            to: &mut Vec<f32>,
        ) -> Result<(), bninception_engine::EngineError> {
            self.inner.store_logits(to)
        }

        fn batch_statistics(
            &mut self,
            images: bninception_engine::Images<'_>,
            to: &mut Vec<f32>,
        ) -> Result<(), bninception_engine::EngineError> {
            self.inner.batch_statistics(images, to)
        }

        fn evaluate_features(
            &mut self,
            images: bninception_engine::Images<'_>,
            logits: &mut Vec<f32>,
            features: &mut bninception_engine::Features,
        ) -> Result<(), bninception_engine::EngineError> {
            self.inner.evaluate_features(images, logits, features)
        }
    };
}

pub(crate) use inner_answers;
