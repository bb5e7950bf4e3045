"""Reference networks, small and after their papers, one file each. Any model will do for petra;
these are the ones its workloads train.

| class | takes | returns |
|---|---|---|
| `resnet.CifarResNet`, `resnet.TinyResNet8` | images (n, 3, 32, 32) | (n, classes) |
| `inception_time.InceptionTime` | series (n, channels, length), any length | (n, outputs) |
| `lstm_fcn.LSTMFCN` | series (n, channels, length) | (n, outputs) |
| `tcn.TCN` | series (n, channels, length), any length | (n, outputs) |
| `patch_transformer.PatchTransformer` | series (n, channels, context) | (n, channels, horizon) |
| `events.EventGRU`, `events.EventTransformer` | events by name, any length | (n, outputs) |

They are made of plain layers, normalise nothing but what they say, and know neither tasks nor
stages. How they are trained is in `petra.workloads`.
"""
