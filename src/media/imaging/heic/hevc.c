/*
 * HEVC still pictures through libde265 (1.0.11 and later), with an interface so narrow that Rust
 * needs no knowledge of libde265's structures.
 *
 * Every function returns 0 for success or a de265_error; hv_message() puts it in words. No threads:
 * without worker threads libde265 decodes where it is called.
 *
 * Pictures are allocated here: of the one size that was announced, one for a still, and gray from the start, so that what a broken stream leaves out shows nobody's memory.
 */
#include <libde265/de265.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Only the slices of one picture are pushed. */
#define MAX_PICTURES 1
/* A round takes in a unit of the stream at least; no still picture has as many. */
#define MAX_ROUNDS 100000
/* libde265's vector code writes past the last sample. */
#define PADDING 64

typedef struct {
    de265_decoder_context *context;
    int width;
    int height;
    int bits;
    int draft;
    int pictures;
} hv_decoder;

typedef struct {
    const uint8_t *plane[3]; /* these live as long as the decoder */
    int32_t stride[3];       /* in bytes */
    int32_t width[3];
    int32_t height[3];
    int32_t bits[3];
    int32_t chroma;
    int32_t full_range;
    int32_t primaries; /* ITU-T H.273 */
    int32_t transfer;
    int32_t matrix;
} hv_picture;

static void release_buffer(de265_decoder_context *context, struct de265_image *image, void *user)
{
    (void)context;
    hv_decoder *decoder = user;
    for (int plane = 0; plane < 3; plane++)
        free(de265_get_image_plane_user_data(image, plane));
    decoder->pictures--;
}

static int get_buffer(de265_decoder_context *context, struct de265_image_spec *spec, struct de265_image *image,
                      void *user)
{
    (void)context;
    hv_decoder *decoder = user;
    if (spec->width != decoder->width || spec->height != decoder->height || decoder->pictures >= MAX_PICTURES)
        return 0;
    int planes = spec->format == de265_image_format_mono8 ? 1 : 3;
    int wide = spec->format == de265_image_format_YUV444P8;
    int high = wide || spec->format == de265_image_format_YUV422P8;
    size_t sample = decoder->bits > 8 ? 2 : 1;
    void *memory[3] = { NULL, NULL, NULL };
    int stride[3] = { 0, 0, 0 };
    for (int plane = 0; plane < planes; plane++) {
        size_t width = plane == 0 || wide ? (size_t)spec->width : ((size_t)spec->width + 1) / 2;
        size_t height = plane == 0 || high ? (size_t)spec->height : ((size_t)spec->height + 1) / 2;
        size_t samples = (width + PADDING - 1) / PADDING * PADDING;
        stride[plane] = (int)(samples * sample);
        samples = samples * height + PADDING;
        memory[plane] = aligned_alloc(PADDING, samples * sample);
        if (!memory[plane]) {
            while (plane-- > 0)
                free(memory[plane]);
            return 0;
        }
        if (sample == 1)
            memset(memory[plane], 128, samples);
        else
            for (size_t i = 0; i < samples; i++)
                ((uint16_t *)memory[plane])[i] = (uint16_t)(1 << (decoder->bits - 1));
    }
    for (int plane = 0; plane < 3; plane++)
        de265_set_image_plane(image, plane, memory[plane], stride[plane], memory[plane]);
    decoder->pictures++;
    /* See hv_open(). */
    de265_set_parameter_bool(decoder->context, DE265_DECODER_PARAM_DISABLE_SAO, decoder->draft);
    return 1;
}

/* For pictures of this coded size and depth. `draft` leaves out the smoothing after decoding. */
int hv_open(int width, int height, int bits, int draft, void **out)
{
    *out = NULL;
    hv_decoder *decoder = calloc(1, sizeof *decoder);
    if (!decoder)
        return DE265_ERROR_OUT_OF_MEMORY;
    decoder->width = width;
    decoder->height = height;
    decoder->bits = bits;
    decoder->draft = draft;
    decoder->context = de265_new_decoder();
    if (!decoder->context) {
        free(decoder);
        return DE265_ERROR_LIBRARY_INITIALIZATION_FAILED;
    }
    struct de265_image_allocation allocation = { get_buffer, release_buffer };
    de265_set_image_allocation_functions(decoder->context, &allocation, decoder);
    de265_set_parameter_bool(decoder->context, DE265_DECODER_PARAM_BOOL_SEI_CHECK_HASH, 0);
    de265_set_parameter_bool(decoder->context, DE265_DECODER_PARAM_DISABLE_DEBLOCKING, draft);
    /* Pictures that pass through this filter would not be allocated by us; so it is switched on
     * only once the picture has been. */
    de265_set_parameter_bool(decoder->context, DE265_DECODER_PARAM_DISABLE_SAO, 1);
    *out = decoder;
    return 0;
}

/* Takes a copy of one unit, without length or start code. */
int hv_push(void *handle, const uint8_t *unit, int len)
{
    hv_decoder *decoder = handle;
    de265_error error = de265_push_NAL(decoder->context, unit, len, 0, NULL);
    return de265_isOK(error) ? 0 : (int)error;
}

/* Decodes the picture whose units were pushed. */
int hv_decode(void *handle, hv_picture *out)
{
    de265_decoder_context *context = ((hv_decoder *)handle)->context;
    de265_error error = de265_flush_data(context);
    const struct de265_image *image = NULL;
    int more = 1;
    for (int round = 0; round < MAX_ROUNDS && more && !image && de265_isOK(error); round++) {
        error = de265_decode(context, &more);
        image = de265_peek_next_picture(context);
    }
    if (!de265_isOK(error))
        return (int)error;
    if (!image)
        return DE265_ERROR_PREMATURE_END_OF_SLICE;
    memset(out, 0, sizeof *out);
    out->chroma = (int32_t)de265_get_chroma_format(image);
    for (int plane = 0; plane < (out->chroma == de265_chroma_mono ? 1 : 3); plane++) {
        int stride = 0;
        out->plane[plane] = de265_get_image_plane(image, plane, &stride);
        out->stride[plane] = stride;
        out->width[plane] = de265_get_image_width(image, plane);
        out->height[plane] = de265_get_image_height(image, plane);
        out->bits[plane] = de265_get_bits_per_pixel(image, plane);
    }
    out->full_range = de265_get_image_full_range_flag(image);
    out->primaries = de265_get_image_colour_primaries(image);
    out->transfer = de265_get_image_transfer_characteristics(image);
    out->matrix = de265_get_image_matrix_coefficients(image);
    return 0;
}

void hv_close(void *handle)
{
    hv_decoder *decoder = handle;
    de265_free_decoder(decoder->context);
    free(decoder);
}

const char *hv_message(int error)
{
    return de265_get_error_text((de265_error)error);
}
