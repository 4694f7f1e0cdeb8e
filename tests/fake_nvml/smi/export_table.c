/* Copyright: ai_infra.workstation contributors
 * GNU General Public License v3.0+ (see LICENSE) */
/* nvmlInternalGetExportTable: what nvidia-smi asks for before it does anything, and calls the
 * absence of "a mismatch in versions".
 *
 * It is no function of nvml.h, so only this variant of the library has it. The real one exports it
 * too and answers with a table of private functions: one word of size, then pointers. What they do
 * is not documented. Here every one of them answers Not Supported; nvidia-smi takes that and goes
 * on by the public functions. */
#include <string.h>

#include "../src/nvml_abi.h"

enum { SLOTS = 512 }; /* the highest seen in use is 248 */

static const unsigned char known[16] = {
    0xc4, 0xfe, 0x3e, 0x6c, 0xc9, 0x8f, 0x6c, 0x4e, 0xa3, 0x27, 0xee, 0x69, 0x6e, 0x12, 0xf7, 0xc4,
};

static nvmlReturn_t not_supported(void) { return NVML_ERROR_NOT_SUPPORTED; }

API nvmlReturn_t nvmlInternalGetExportTable(const void **table, const unsigned char *id)
{
    static struct {
        size_t size;
        nvmlReturn_t (*slot[SLOTS])(void);
    } filled = {.size = sizeof filled};
    if (!table || !id)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (memcmp(id, known, sizeof known) != 0)
        return NVML_ERROR_NOT_FOUND;
    for (int i = 0; i < SLOTS; i++)
        filled.slot[i] = not_supported;
    *table = &filled;
    return NVML_SUCCESS;
}
