"""The SliME model, one file per block of the paper.

In the order of the data: tiling, vision_encoder (and vision_families, recogniser_encoder), query_attention,
global_adapters (and visual_vocabulary), local_compressor, page_positions, slime_vision (composes the vision parts),
question_selector (and selectors, scorers), slime_selection, token_merging, slime_merging (selects, merges and embeds),
slime_model (adds the language model), modeling_slime (adds the head), generation. Models that name characters add
line_queries, character_naming (and alike_characters), named_cells, cell_words, word_embedding, linker (and
run_relations), cell_runs, open_vocabulary, character_tokens, slime_words, answer_finder, copy_output, copying,
copying_run and pointing_attention. Images and chats become model inputs in `slime_vlm.processing`.

Shape letters used in every docstring:

    B  rows of a batch          I  images of a batch        V  views of the whole batch (global views and tiles)
    T  tiles                    N  vision tokens of a view  Q  learnable queries of a tile
    L  local tokens of an image S  sequence length          D  width of the language model
    C  width of the vision encoder                          K  slots of the visual vocabulary

Sizes are (height, width) everywhere; grids are (rows, columns).
"""
