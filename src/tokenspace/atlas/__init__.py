"""The atlas: a whole vocabulary, its positions and its training in one HTML file.

`Atlas.of` gathers what the page shows, `Atlas.save` writes the page; in notebooks an atlas shows itself.
"""

from tokenspace.atlas.atlas import Atlas as Atlas
from tokenspace.atlas.data import AtlasData as AtlasData
from tokenspace.atlas.gather import gather as gather
from tokenspace.atlas.parquet import export_parquet as export_parquet
