/* Stand-in for libnvidia-ml.so.1: two devices whose every answer is known, for the real nvidia-ml-py to load.

   A reading's k-th call (k = 0, 1, ...) on device d answers
     memory    total 80 GiB (d = 0), 40 GiB (d = 1); used = (1 + d) GiB + k MiB
     busy      gpu = 10 + d + k %, memory = 20 + d %
     power     (100 + 50 d) W + k mW
     energy    device 0: 5000 J + 12.5 J k;  device 1: not supported
     clock     1410 + d MHz      temperature 40 + d C      reasons 0x4 | 0x40 (d = 0), 0x1 (d = 1)
   Processes are read at each call from the file NVML_STANDIN_PROCESSES: lines `device pid bytes kind`, bytes -1 for "not available",
   kind C (compute) or G (graphics).
   NVML_STANDIN_LOST_AFTER=n: after n power readings of device 0, every call on device 0 answers "GPU is lost".
   NVML_STANDIN_NO_DRIVER=1: nvmlInit answers "driver not loaded".

   It shows that we call NVML rightly, convert units, name what is missing and survive a lost device. It cannot show what a real
   driver answers: its refresh rate, its cost under load, MIG, or which pids a container sees. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SUCCESS = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, INSUFFICIENT_SIZE = 7, DRIVER_NOT_LOADED = 9, GPU_IS_LOST = 15 };
enum { DEVICES = 2 };
#define GIB 1073741824ULL

typedef struct { unsigned int version; unsigned long long total, reserved, free, used; } memory_v2;
typedef struct { unsigned int gpu, memory; } utilization;
typedef struct { unsigned int pid; unsigned long long used; unsigned int instance, compute_instance; } process;

static int tags[DEVICES] = {0, 1};
static long lost_after = -1, power_calls[DEVICES], memory_calls[DEVICES], busy_calls[DEVICES], energy_calls[DEVICES];

static int number(const void *device) { return *(const int *)device; }
static int lost(const void *device) { return number(device) == 0 && lost_after >= 0 && power_calls[0] >= lost_after; }

int nvmlInitWithFlags(unsigned int flags) {
    (void)flags;
    const char *after = getenv("NVML_STANDIN_LOST_AFTER");
    if (after) lost_after = atol(after);
    return getenv("NVML_STANDIN_NO_DRIVER") ? DRIVER_NOT_LOADED : SUCCESS;
}
int nvmlShutdown(void) { return SUCCESS; }
const char *nvmlErrorString(int code) {
    return code == NOT_SUPPORTED ? "Not Supported" : code == GPU_IS_LOST ? "GPU is lost" : code == DRIVER_NOT_LOADED ? "Driver Not Loaded" : "Error";
}
int nvmlDeviceGetCount_v2(unsigned int *count) { *count = DEVICES; return SUCCESS; }
int nvmlDeviceGetHandleByIndex_v2(unsigned int index, void **device) {
    if (index >= DEVICES) return INVALID_ARGUMENT;
    *device = &tags[index];
    return SUCCESS;
}
int nvmlDeviceGetUUID(void *device, char *text, unsigned int size) { snprintf(text, size, "GPU-standin-%d", number(device)); return SUCCESS; }
int nvmlDeviceGetName(void *device, char *text, unsigned int size) { snprintf(text, size, "Stand-in %d", number(device)); return SUCCESS; }
int nvmlSystemGetDriverVersion(char *text, unsigned int size) { snprintf(text, size, "580.1.2"); return SUCCESS; }
int nvmlSystemGetCudaDriverVersion_v2(int *version) { *version = 13010; return SUCCESS; }
int nvmlDeviceGetCudaComputeCapability(void *device, int *major, int *minor) { *major = 9; *minor = number(device); return SUCCESS; }
int nvmlDeviceGetEnforcedPowerLimit(void *device, unsigned int *milliwatts) {
    *milliwatts = 700000;
    return number(device) == 0 ? SUCCESS : NOT_SUPPORTED;
}

int nvmlDeviceGetMemoryInfo_v2(void *device, memory_v2 *memory) {
    int d = number(device);
    if (lost(device)) return GPU_IS_LOST;
    if (memory->version != (sizeof(memory_v2) | 2u << 24)) return INVALID_ARGUMENT;
    memory->total = (d == 0 ? 80 : 40) * GIB;
    memory->reserved = GIB / 4;
    memory->used = (1 + d) * GIB + memory_calls[d]++ * 1048576ULL;
    memory->free = memory->total - memory->reserved - memory->used;
    return SUCCESS;
}
int nvmlDeviceGetUtilizationRates(void *device, utilization *rates) {
    if (lost(device)) return GPU_IS_LOST;
    rates->gpu = 10 + number(device) + busy_calls[number(device)]++;
    rates->memory = 20 + number(device);
    return SUCCESS;
}
int nvmlDeviceGetPowerUsage(void *device, unsigned int *milliwatts) {
    if (lost(device)) return GPU_IS_LOST;
    *milliwatts = 100000 + 50000 * number(device) + power_calls[number(device)]++;
    return SUCCESS;
}
int nvmlDeviceGetTotalEnergyConsumption(void *device, unsigned long long *millijoules) {
    if (lost(device)) return GPU_IS_LOST;
    if (number(device) == 1) return NOT_SUPPORTED;
    *millijoules = 5000000ULL + 12500ULL * energy_calls[0]++;
    return SUCCESS;
}
int nvmlDeviceGetClockInfo(void *device, int kind, unsigned int *mhz) {
    if (lost(device)) return GPU_IS_LOST;
    *mhz = kind == 1 ? 1410 + number(device) : 1; /* 1 is NVML_CLOCK_SM */
    return SUCCESS;
}
int nvmlDeviceGetTemperature(void *device, int sensor, unsigned int *celsius) {
    if (lost(device)) return GPU_IS_LOST;
    *celsius = sensor == 0 ? 40 + number(device) : 0;
    return SUCCESS;
}
int nvmlDeviceGetCurrentClocksEventReasons(void *device, unsigned long long *reasons) {
    if (lost(device)) return GPU_IS_LOST;
    *reasons = number(device) == 0 ? 0x44 : 0x1;
    return SUCCESS;
}

static int running(void *device, unsigned int *count, process *into, char wanted) {
    const char *path = getenv("NVML_STANDIN_PROCESSES");
    FILE *file = path ? fopen(path, "r") : NULL;
    unsigned int found = 0, room = *count, pid;
    int on;
    long long bytes;
    char kind;
    if (lost(device)) { if (file) fclose(file); return GPU_IS_LOST; }
    while (file && fscanf(file, "%d %u %lld %c", &on, &pid, &bytes, &kind) == 4) {
        if (on != number(device) || kind != wanted) continue;
        if (found < room && into) into[found] = (process){pid, (unsigned long long)bytes, 0xFFFFFFFF, 0xFFFFFFFF};
        found++;
    }
    if (file) fclose(file);
    *count = found;
    return found > room || (found && !into) ? INSUFFICIENT_SIZE : SUCCESS;
}
int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned int *count, process *into) { return running(device, count, into, 'C'); }
int nvmlDeviceGetGraphicsRunningProcesses_v3(void *device, unsigned int *count, process *into) { return running(device, count, into, 'G'); }
