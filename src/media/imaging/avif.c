/*
 * AVIF in and out through libavif (0.11 and 1.x), with an interface so narrow that Rust needs
 * no knowledge of libavif's structures, whose layout changes between versions.
 *
 * Every function returns 0 for success or an avifResult; av_message() puts it in words.
 * Limits are handed to libavif before it parses anything. One thread, always: the process
 * around us may not start more.
 */
#include <avif/avif.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    uint32_t width;
    uint32_t height;
    uint32_t frames;
    uint8_t has_alpha;
    uint8_t quarter_turns; /* anticlockwise */
    uint8_t mirror;        /* 0 top-bottom, 1 left-right, 255 none */
    uint8_t primaries;     /* ITU-T H.273 */
    uint8_t transfer;
    const uint8_t *icc;    /* these live as long as the decoder */
    size_t icc_len;
    const uint8_t *exif;
    size_t exif_len;
    const uint8_t *xmp;
    size_t xmp_len;
} av_info;

int av_open(const uint8_t *data, size_t len, uint32_t max_pixels, uint32_t max_side, void **out, av_info *info)
{
    *out = NULL;
    avifDecoder *decoder = avifDecoderCreate();
    if (!decoder)
        return AVIF_RESULT_OUT_OF_MEMORY;
    decoder->maxThreads = 1;
    decoder->strictFlags = AVIF_STRICT_ALPHA_ISPE_REQUIRED;
    decoder->imageSizeLimit = max_pixels < AVIF_DEFAULT_IMAGE_SIZE_LIMIT ? max_pixels : AVIF_DEFAULT_IMAGE_SIZE_LIMIT;
    decoder->imageDimensionLimit = max_side;

    avifResult result = avifDecoderSetIOMemory(decoder, data, len);
    if (result == AVIF_RESULT_OK)
        result = avifDecoderParse(decoder);
    if (result != AVIF_RESULT_OK) {
        avifDecoderDestroy(decoder);
        return (int)result;
    }
    const avifImage *image = decoder->image;
    memset(info, 0, sizeof *info);
    info->width = image->width;
    info->height = image->height;
    info->frames = decoder->imageCount > 0 ? (uint32_t)decoder->imageCount : 1;
    info->has_alpha = decoder->alphaPresent ? 1 : 0;
    info->quarter_turns = (image->transformFlags & AVIF_TRANSFORM_IROT) ? image->irot.angle : 0;
    info->mirror = 255;
    if (image->transformFlags & AVIF_TRANSFORM_IMIR) {
#if AVIF_VERSION_MAJOR >= 1
        info->mirror = image->imir.axis;
#else
        info->mirror = image->imir.mode;
#endif
    }
    info->primaries = (uint8_t)image->colorPrimaries;
    info->transfer = (uint8_t)image->transferCharacteristics;
    info->icc = image->icc.data;
    info->icc_len = image->icc.size;
    info->exif = image->exif.data;
    info->exif_len = image->exif.size;
    info->xmp = image->xmp.data;
    info->xmp_len = image->xmp.size;
    *out = decoder;
    return 0;
}

/* Fills width * height RGBA pixels, as av_open() told the size. */
int av_pixels(void *handle, uint8_t *rgba, uint32_t width, uint32_t height)
{
    avifDecoder *decoder = handle;
    avifResult result = avifDecoderNextImage(decoder);
    if (result != AVIF_RESULT_OK)
        return (int)result;
    /* The stream may contradict its container; the buffer was made for the container. */
    if (decoder->image->width != width || decoder->image->height != height)
        return AVIF_RESULT_BMFF_PARSE_FAILED;
    avifRGBImage rgb;
    avifRGBImageSetDefaults(&rgb, decoder->image);
    rgb.format = AVIF_RGB_FORMAT_RGBA;
    rgb.depth = 8;
    rgb.pixels = rgba;
    rgb.rowBytes = width * 4;
    return (int)avifImageYUVToRGB(decoder->image, &rgb);
}

void av_close(void *handle)
{
    avifDecoderDestroy(handle);
}

/*
 * Writes packed 8-bit RGB (channels 3) or RGBA (channels 4) as 4:2:0; or, where `pixels` is null, unpadded planes of
 * full range, as 4:2:0 (channels 3) or luma alone (channels 1). Metadata of no length is
 * left out. The bytes are given back by av_free().
 */
int av_encode(const uint8_t *pixels, const uint8_t *const planes[3], uint32_t width, uint32_t height,
              uint32_t channels, int quality, int speed, const uint8_t *exif, size_t exif_len, const uint8_t *xmp,
              size_t xmp_len, uint8_t **out, size_t *out_len)
{
    *out = NULL;
    *out_len = 0;
    avifRWData encoded = AVIF_DATA_EMPTY;
    avifResult result = AVIF_RESULT_OUT_OF_MEMORY;
    avifEncoder *encoder = avifEncoderCreate();
    avifImage *image =
        avifImageCreate(width, height, 8, channels == 1 ? AVIF_PIXEL_FORMAT_YUV400 : AVIF_PIXEL_FORMAT_YUV420);
    if (!encoder || !image)
        goto done;
    image->yuvRange = AVIF_RANGE_FULL;
    image->colorPrimaries = AVIF_COLOR_PRIMARIES_BT709;
    image->transferCharacteristics = AVIF_TRANSFER_CHARACTERISTICS_SRGB;
    image->matrixCoefficients = AVIF_MATRIX_COEFFICIENTS_BT601;

    if (!pixels) {
        for (uint32_t plane = 0; plane < channels; plane++) {
            image->yuvPlanes[plane] = (uint8_t *)planes[plane]; /* only read */
            image->yuvRowBytes[plane] = plane ? (width + 1) / 2 : width;
        }
        image->imageOwnsYUVPlanes = AVIF_FALSE;
    } else {
        avifRGBImage rgb;
        avifRGBImageSetDefaults(&rgb, image);
        rgb.format = channels == 4 ? AVIF_RGB_FORMAT_RGBA : AVIF_RGB_FORMAT_RGB;
        rgb.depth = 8;
        rgb.pixels = (uint8_t *)pixels; /* only read */
        rgb.rowBytes = width * channels;
        result = avifImageRGBToYUV(image, &rgb);
        if (result != AVIF_RESULT_OK)
            goto done;
    }

    /* Later versions answer with a result; metadata that does not fit is no reason to fail. */
    if (exif_len)
        (void)avifImageSetMetadataExif(image, exif, exif_len);
    if (xmp_len)
        (void)avifImageSetMetadataXMP(image, xmp, xmp_len);

    encoder->maxThreads = 1;
    encoder->speed = speed;
#if AVIF_VERSION_MAJOR >= 1
    encoder->quality = quality;
    encoder->qualityAlpha = quality;
#else
    /* The same curve that later versions use for `quality`. */
    int quantizer = ((100 - quality) * AVIF_QUANTIZER_WORST_QUALITY + 50) / 100;
    char level[8] = { (char)('0' + quantizer / 10), (char)('0' + quantizer % 10), 0 };
    encoder->minQuantizer = encoder->minQuantizerAlpha = AVIF_QUANTIZER_BEST_QUALITY;
    encoder->maxQuantizer = encoder->maxQuantizerAlpha = AVIF_QUANTIZER_WORST_QUALITY;
    avifEncoderSetCodecSpecificOption(encoder, "end-usage", "q");
    avifEncoderSetCodecSpecificOption(encoder, "cq-level", level);
#endif
    result = avifEncoderWrite(encoder, image, &encoded);
    if (result == AVIF_RESULT_OK) {
        *out = malloc(encoded.size ? encoded.size : 1);
        if (*out) {
            memcpy(*out, encoded.data, encoded.size);
            *out_len = encoded.size;
        } else {
            result = AVIF_RESULT_OUT_OF_MEMORY;
        }
    }
done:
    avifRWDataFree(&encoded);
    if (image)
        avifImageDestroy(image);
    if (encoder)
        avifEncoderDestroy(encoder);
    return (int)result;
}

void av_free(uint8_t *bytes)
{
    free(bytes);
}

const char *av_message(int result)
{
    return avifResultToString((avifResult)result);
}
