//! The messages of TensorBoard that a run needs: a subset by hand, so that a build needs no `protoc`.
//!
//! - `event.proto`, `summary.proto`, `tensor.proto`, `tensor_shape.proto`, `histogram.proto` of
//!   <https://github.com/tensorflow/tensorboard/tree/2.21.0/tensorboard/compat/proto>
//! - `plugin_data.proto` and `api.proto` of
//!   <https://github.com/tensorflow/tensorboard/tree/2.21.0/tensorboard/plugins/hparams>
//! - `struct.proto` of <https://protobuf.dev/reference/protobuf/google.protobuf/>

use std::collections::BTreeMap;

use prost::{Message, Oneof};

/// `SessionLog.SessionStatus.START`.
pub(super) const SESSION_START: i32 = 1;

/// `DataType` of tensors.
pub(super) const DT_FLOAT: i32 = 1;
pub(super) const DT_STRING: i32 = 7;

/// `hparams.DataType`.
pub(super) const DATA_TYPE_STRING: i32 = 1;
pub(super) const DATA_TYPE_BOOL: i32 = 2;
pub(super) const DATA_TYPE_FLOAT64: i32 = 3;

/// `hparams.DatasetType`.
pub(super) const DATASET_TRAINING: i32 = 1;
pub(super) const DATASET_VALIDATION: i32 = 2;

/// `Event`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct EventMessage {
    #[prost(double, tag = "1")]
    pub(super) wall_time: f64,
    #[prost(int64, tag = "2")]
    pub(super) step: i64,
    #[prost(oneof = "EventContent", tags = "3, 5, 7")]
    pub(super) content: Option<EventContent>,
}

/// `Event.what`.
#[derive(Clone, PartialEq, Oneof)]
pub(super) enum EventContent {
    #[prost(string, tag = "3")]
    FileVersion(String),
    #[prost(message, tag = "5")]
    Summary(SummaryMessage),
    #[prost(message, tag = "7")]
    SessionLog(SessionLog),
}

/// `SessionLog`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct SessionLog {
    #[prost(int32, tag = "1")]
    pub(super) status: i32,
}

/// `Summary`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct SummaryMessage {
    #[prost(message, repeated, tag = "1")]
    pub(super) value: Vec<SummaryValue>,
}

/// `Summary.Value`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct SummaryValue {
    #[prost(string, tag = "1")]
    pub(super) tag: String,
    #[prost(message, optional, tag = "9")]
    pub(super) metadata: Option<SummaryMetadata>,
    #[prost(oneof = "SummaryContent", tags = "2, 5, 8")]
    pub(super) content: Option<SummaryContent>,
}

/// `Summary.Value.value`.
#[derive(Clone, PartialEq, Oneof)]
pub(super) enum SummaryContent {
    #[prost(float, tag = "2")]
    Scalar(f32),
    #[prost(message, tag = "5")]
    Histogram(HistogramMessage),
    #[prost(message, tag = "8")]
    Tensor(TensorMessage),
}

/// `SummaryMetadata`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct SummaryMetadata {
    #[prost(message, optional, tag = "1")]
    pub(super) plugin_data: Option<PluginData>,
    #[prost(string, tag = "2")]
    pub(super) display_name: String,
    #[prost(string, tag = "3")]
    pub(super) summary_description: String,
}

/// `SummaryMetadata.PluginData`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct PluginData {
    #[prost(string, tag = "1")]
    pub(super) plugin_name: String,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) content: Vec<u8>,
}

/// `HistogramProto`. Bucket i holds the values from `bucket_limit[i - 1]`, not included, to `bucket_limit[i]`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct HistogramMessage {
    #[prost(double, tag = "1")]
    pub(super) min: f64,
    #[prost(double, tag = "2")]
    pub(super) max: f64,
    #[prost(double, tag = "3")]
    pub(super) num: f64,
    #[prost(double, tag = "4")]
    pub(super) sum: f64,
    #[prost(double, tag = "5")]
    pub(super) sum_squares: f64,
    #[prost(double, repeated, tag = "6")]
    pub(super) bucket_limit: Vec<f64>,
    #[prost(double, repeated, tag = "7")]
    pub(super) bucket: Vec<f64>,
}

/// `TensorProto`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct TensorMessage {
    #[prost(int32, tag = "1")]
    pub(super) dtype: i32,
    #[prost(message, optional, tag = "2")]
    pub(super) tensor_shape: Option<ShapeMessage>,
    #[prost(bytes = "vec", repeated, tag = "8")]
    pub(super) string_val: Vec<Vec<u8>>,
}

/// `TensorShapeProto`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ShapeMessage {
    #[prost(message, repeated, tag = "2")]
    pub(super) dim: Vec<ShapeDimension>,
}

/// `TensorShapeProto.Dim`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ShapeDimension {
    #[prost(int64, tag = "1")]
    pub(super) size: i64,
}

/// `HParamsPluginData`, whose `version` is 0, which is not written.
#[derive(Clone, PartialEq, Message)]
pub(super) struct HparamsData {
    #[prost(oneof = "HparamsContent", tags = "2, 3, 4")]
    pub(super) content: Option<HparamsContent>,
}

/// `HParamsPluginData.data`.
#[derive(Clone, PartialEq, Oneof)]
pub(super) enum HparamsContent {
    #[prost(message, tag = "2")]
    Experiment(HparamsExperiment),
    #[prost(message, tag = "3")]
    Start(SessionStart),
    #[prost(message, tag = "4")]
    End(SessionEnd),
}

/// `hparams.Experiment`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct HparamsExperiment {
    #[prost(message, repeated, tag = "4")]
    pub(super) hparam_infos: Vec<HparamInfo>,
    #[prost(message, repeated, tag = "5")]
    pub(super) metric_infos: Vec<MetricInfo>,
}

/// `HParamInfo`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct HparamInfo {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "3")]
    pub(super) description: String,
    #[prost(int32, tag = "4")]
    pub(super) data_type: i32,
    #[prost(message, optional, tag = "5")]
    pub(super) domain_discrete: Option<ProtoList>,
    #[prost(bool, tag = "7")]
    pub(super) differs: bool,
}

/// `MetricInfo`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct MetricInfo {
    #[prost(message, optional, tag = "1")]
    pub(super) name: Option<MetricName>,
    #[prost(string, tag = "3")]
    pub(super) display_name: String,
    #[prost(string, tag = "4")]
    pub(super) description: String,
    #[prost(int32, tag = "5")]
    pub(super) dataset_type: i32,
}

/// `MetricName`, whose `group` is that of the session itself, which is not written.
#[derive(Clone, PartialEq, Message)]
pub(super) struct MetricName {
    #[prost(string, tag = "2")]
    pub(super) tag: String,
}

/// `SessionStartInfo`. Without a `group_name` each session stands for itself.
#[derive(Clone, PartialEq, Message)]
pub(super) struct SessionStart {
    #[prost(btree_map = "string, message", tag = "1")]
    pub(super) hparams: BTreeMap<String, ProtoValue>,
    #[prost(double, tag = "5")]
    pub(super) start_time_secs: f64,
}

/// `SessionEndInfo`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct SessionEnd {
    #[prost(int32, tag = "1")]
    pub(super) status: i32,
    #[prost(double, tag = "2")]
    pub(super) end_time_secs: f64,
}

/// `google.protobuf.Value`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ProtoValue {
    #[prost(oneof = "ProtoKind", tags = "2, 3, 4")]
    pub(super) kind: Option<ProtoKind>,
}

/// `google.protobuf.Value.kind`.
#[derive(Clone, PartialEq, Oneof)]
pub(super) enum ProtoKind {
    #[prost(double, tag = "2")]
    Number(f64),
    #[prost(string, tag = "3")]
    Text(String),
    #[prost(bool, tag = "4")]
    Bool(bool),
}

/// `google.protobuf.ListValue`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ProtoList {
    #[prost(message, repeated, tag = "1")]
    pub(super) values: Vec<ProtoValue>,
}
