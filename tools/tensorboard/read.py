"""Prints, as JSON, what TensorBoard's own code reads of a folder of runs.

    python tools/tensorboard/read.py FOLDER

"runs" has what its EventAccumulator gives for each run: scalars as [step, value], images as [step, width, height,
the PNG's width and height]. "experiment" and "sessions" are what its plugins answer to a browser.
"""

import io
import json
import os
import sys

import PIL.Image
from google.protobuf import json_format
from tensorboard.backend.event_processing import (
    data_provider,
    event_accumulator,
    plugin_event_multiplexer,
)
from tensorboard.context import RequestContext
from tensorboard.plugins import base_plugin
from tensorboard.plugins.hparams import (
    api_pb2,
    backend_context,
    get_experiment,
    list_session_groups,
)
from tensorboard.plugins.image import metadata as image_metadata
from tensorboard.util import tensor_util

EVERYTHING = event_accumulator.STORE_EVERYTHING_SIZE_GUIDANCE


def run_of(folder):
    events = event_accumulator.EventAccumulator(folder, size_guidance=EVERYTHING)
    events.Reload()
    tags = events.Tags()
    scalars = {
        tag: [[event.step, event.value] for event in events.Scalars(tag)] for tag in tags["scalars"]
    }
    images = {}
    for tag in events.PluginTagToContent(image_metadata.PLUGIN_NAME):
        image_metadata.parse_plugin_metadata(events.SummaryMetadata(tag).plugin_data.content)
        images[tag] = [[event.step, *image_of(event)] for event in events.Tensors(tag)]
    return {"scalars": scalars, "images": images, "histograms": tags["histograms"]}


def image_of(event):
    width, height, *pictures = tensor_util.make_ndarray(event.tensor_proto)
    (picture,) = pictures
    with PIL.Image.open(io.BytesIO(picture)) as image:
        image.load()
        return [int(width), int(height), *image.size]


def plugins_of(folder):
    runs = plugin_event_multiplexer.EventMultiplexer(tensor_size_guidance={})
    runs.AddRunsFromDirectory(folder)
    runs.Reload()
    provider = data_provider.MultiplexerDataProvider(runs, folder)
    context = backend_context.Context(base_plugin.TBContext(data_provider=provider))
    experiment = get_experiment.Handler(
        RequestContext(), context, "", api_pb2.GetExperimentRequest()
    ).run()
    request = api_pb2.ListSessionGroupsRequest(
        slice_size=1000,
        allowed_statuses=[status for _, status in api_pb2.Status.items()],
    )
    groups = list_session_groups.Handler(RequestContext(), context, "", request).run()
    images = provider.list_blob_sequences(
        RequestContext(), experiment_id="", plugin_name=image_metadata.PLUGIN_NAME
    )
    return {
        "experiment": json_format.MessageToDict(experiment),
        "sessions": json_format.MessageToDict(groups).get("sessionGroups", []),
        "image_tags": {run: sorted(tags) for run, tags in images.items()},
    }


def main():
    (folder,) = sys.argv[1:]
    runs = {}
    for path, _, names in sorted(os.walk(folder)):
        if any("tfevents" in name for name in names):
            runs[os.path.relpath(path, folder)] = run_of(path)
    json.dump({"runs": runs, **plugins_of(folder)}, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
