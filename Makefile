# make            the program, ./sdlora            make test       the whole test suite
# make check      format, layers, static analysis   make mutants    sabotages that the tests must catch
# make figures    the pictures of the README       make fuzz       libFuzzer targets (clang)
# make results    the table of the README, 45 minutes
# make valgrind   tests and commands under memcheck  make tsan       a training step under ThreadSanitizer
# Variables: CC, CFLAGS, CPPFLAGS, LDFLAGS, LDLIBS; SANITIZE=address,undefined; NATIVE=1; MPI=1 (processes); prefix, DESTDIR; V=1 shows the commands.
# Asserts are compiled in: they stand around loops, not inside, and cost nothing measurable. CPPFLAGS=-DNDEBUG leaves them out.

VERSION := 0.1.0
ifeq ($(origin CC),default)
  CC := gcc
endif
CFLAGS ?= -O2 -g
PKG_CONFIG ?= pkg-config
prefix ?= /usr/local
bindir ?= $(prefix)/bin
BUILD ?= build

PKGS := openblas zlib jansson libmd libpcre2-8 libzip
STD := -std=c11 -ffp-contract=fast -fno-math-errno -fno-trapping-math
WARN := -Wall -Wextra -Wshadow -Wmissing-prototypes -Wstrict-prototypes -Wvla
INCL := -Iinclude -DSDLORA_VERSION='"$(VERSION)"' -D_GNU_SOURCE $(shell $(PKG_CONFIG) --cflags $(PKGS)) \
        $(addprefix -isystem ,$(wildcard /usr/include/stb))
LIBS := $(shell $(PKG_CONFIG) --libs $(PKGS)) -lm
THREADS := -pthread
CONFIG := release

ifdef SANITIZE
  CONFIG := san-$(shell echo '$(SANITIZE)' | tr ',' '-')
  OPT_EXTRA += -fsanitize=$(SANITIZE) -fno-sanitize-recover=all -fno-omit-frame-pointer
endif
ifdef NATIVE
  OPT_EXTRA += -march=native
endif

# Kernels are compiled once per instruction set and chosen at run time (src/backend/dispatch.c).
ARCH := $(shell $(CC) -dumpmachine | cut -d- -f1)
ifeq ($(ARCH),x86_64)
  ISAS := avx512 avx2 baseline
  BF16_ISAS := amx avx512bf16
  ISA_avx512 := -march=skylake-avx512 -mprefer-vector-width=512 -DISA=avx512 -DVBYTES=64
  # Products in bfloat16 have units of their own there; all else is avx512's.
  ISA_avx512bf16 := $(ISA_avx512) -mavx512bf16
  ISA_amx := $(ISA_avx512) -mavx512bf16 -mamx-tile -mamx-bf16 -DUNIT_AMX
  ISA_avx2 := -mavx2 -mfma -mbmi -mbmi2 -DISA=avx2 -DVBYTES=32
else ifneq ($(filter aarch64 arm64,$(ARCH)),)
  ISAS := neon
else
  ISAS := baseline
endif
ISA_neon := -DISA=neon -DVBYTES=16
ISA_baseline := -DISA=baseline -DVBYTES=16
# An ISAS from outside that leaves out avx512 leaves out those, too.
UNITS := $(ISAS) $(if $(filter avx512,$(ISAS)),$(BF16_ISAS))
HAVE_ISA := $(addprefix -DHAVE_ISA_,$(UNITS))
# With sanitizers and -O3 gcc takes 45 s instead of 5 over a kernel. Multiply-adds, which the formulas count on, are
# among the expensive ones.
KERNEL_OPT := $(if $(SANITIZE),-O1 -fexpensive-optimizations,-O3)

# Threads may have small stacks: whatever is large is allocated. Kernels keep a row of tiles there. (Sanitizers and
# debugging builds have larger frames.)
FRAME := $(if $(SANITIZE),,-Wframe-larger-than=12800)
KERNEL_FRAME := $(if $(SANITIZE),,-Wframe-larger-than=24576)

LIB_SRC := $(filter-out src/cli/% src/backend/cpu/%,$(wildcard src/*/*.c src/*/*/*.c src/*/*/*/*.c))
BF16_SRC := $(wildcard src/backend/cpu/bf16/*.c)
KERNEL_SRC := $(filter-out $(BF16_SRC),$(wildcard src/backend/cpu/*.c src/backend/cpu/*/*.c))
CLI_SRC := $(wildcard src/cli/*.c src/cli/*/*.c)
TEST_SRC := $(wildcard tests/test_*.c)
GRAD_SRC := $(wildcard tests/grad_*.c)

# One build directory per configuration; a stamp holds the flags, so that changed flags rebuild.
OBJ := $(BUILD)/$(CONFIG)
DBL := $(BUILD)/$(CONFIG)-double
OPTIONS = $(STD) $(WARN) $(INCL) $(HAVE_ISA) $(THREADS) $(OPT_EXTRA) $(CPPFLAGS) $(CFLAGS)
FLAGS = $(CC) $(OPTIONS)
objs = $(patsubst src/%.c,$(1)/%.o,$(LIB_SRC)) \
       $(foreach i,$(ISAS),$(patsubst src/backend/cpu/%.c,$(1)/backend/cpu/$(i)/%.o,$(KERNEL_SRC)))
bf16_objs = $(foreach i,$(UNITS),$(patsubst src/backend/cpu/%.c,$(1)/backend/cpu/$(i)/%.o,$(BF16_SRC)))

Q := $(if $(V),,@)
say = $(if $(V),@:,@echo "$(1)")

all: sdlora

PROGRAM := $(OBJ)/sdlora$(if $(MPI),-mpi)
sdlora: $(PROGRAM) FORCE
	@cmp -s $< $@ || cp -f $< $@

CLI_OBJ := $(patsubst src/%.c,$(OBJ)/%.o,$(CLI_SRC))
$(OBJ)/sdlora: $(CLI_OBJ) $(OBJ)/libsdlora.a
	$(call say,LD $@)
	$(Q)$(FLAGS) $(LDFLAGS) $^ -o $@ $(LIBS) $(LDLIBS)

# With MPI=1 (include/sdlora/ranks.h): one file is another, and MPI's wrapper of the compiler knows what that needs.
MPICC ?= mpicc
MPI_FLAGS = OMPI_CC="$(CC)" MPICH_CC="$(CC)" I_MPI_CC="$(CC)" $(MPICC) $(OPTIONS)
$(OBJ)/sdlora-mpi: $(CLI_OBJ) $(OBJ)/mpi/ranks.o $(OBJ)/libsdlora.a
	$(call say,LD $@)
	$(Q)$(MPI_FLAGS) $(LDFLAGS) $^ -o $@ $(LIBS) $(LDLIBS)
$(OBJ)/mpi/ranks.o: src/base/ranks.c $(OBJ)/flags
	@mkdir -p $(@D)
	$(call say,CC $< with MPI)
	$(Q)$(MPI_FLAGS) -DHAVE_MPI -MMD -MP -c $< -o $@

$(OBJ)/libsdlora.a: $(call objs,$(OBJ)) $(call bf16_objs,$(OBJ))
	@rm -f $@; ar rcs $@ $^
$(DBL)/libsdlora.a: $(call objs,$(DBL))
	@rm -f $@; ar rcs $@ $^

$(OBJ)/flags $(DBL)/flags: FORCE
	@mkdir -p $(@D); echo '$(FLAGS) $(FRAME) $(KERNEL_FRAME) $(KERNEL_OPT)' | cmp -s - $@ || \
	  echo '$(FLAGS) $(FRAME) $(KERNEL_FRAME) $(KERNEL_OPT)' > $@

define build_rules
$(1)/%.o: src/%.c $(1)/flags
	@mkdir -p $$(@D)
	$$(call say,CC $$<)
	$$(Q)$$(FLAGS) $(FRAME) $(2) -MMD -MP -c $$< -o $$@
$(foreach i,$(UNITS),
$(1)/backend/cpu/$(i)/%.o: src/backend/cpu/%.c $(1)/flags
	@mkdir -p $$(@D)
	$$(call say,CC $$< $(i))
	$$(Q)$$(FLAGS) $(KERNEL_FRAME) $(KERNEL_OPT) $(ISA_$(i)) -DUNIT=$(i) $(2) -MMD -MP -c $$< -o $$@
)
$(1)/tests/%: tests/%.c $(1)/libsdlora.a $(wildcard tests/*.h)
	@mkdir -p $$(@D)
	$$(call say,CC $$<)
	$$(Q)$$(FLAGS) $(2) -Itests $$< $(1)/libsdlora.a -o $$@ $$(LDFLAGS) $$(LIBS) $$(LDLIBS) -lcmocka
endef
$(eval $(call build_rules,$(OBJ),))
$(eval $(call build_rules,$(DBL),-DSDLORA_DOUBLE))
# The generator must give the same bits everywhere, so no multiply-add may be contracted there.
$(OBJ)/base/rng.o $(DBL)/base/rng.o: private STD := -std=c11 -ffp-contract=off -O3 -fno-math-errno -fno-trapping-math

TESTS := $(patsubst tests/%.c,$(OBJ)/tests/%,$(TEST_SRC)) $(patsubst tests/%.c,$(DBL)/tests/%,$(GRAD_SRC))

# The shim is loaded before the program (tests/cli_faults.sh); a sanitizer must be there first and brings its own malloc.
ifndef SANITIZE
  FAULT_SHIM := $(OBJ)/tests/fault_shim.so
endif
$(OBJ)/tests/fault_shim.so: tests/fault/shim.c $(OBJ)/flags
	@mkdir -p $(@D)
	$(call say,CC $<)
	$(Q)$(CC) -std=c11 -D_GNU_SOURCE $(WARN) -O2 -g -fPIC -shared $< -o $@

test: sdlora $(TESTS) $(FAULT_SHIM)
	@SDLORA=$(abspath $(PROGRAM)) FAULT_SHIM=$(if $(FAULT_SHIM),$(abspath $(FAULT_SHIM))) \
		JOBS=$(JOBS) tests/run.sh $(TESTS)

# Under memcheck: these test programs, then every command of the program itself (scripts/valgrind.sh). Left out are those
# that take minutes there: training, drawing (the commands stand in for them), kernels and gradients against the reference
# (the same code as test_golden_unet's; the sanitizers run them all).
VALGRIND_SLOW := test_sampler_picture test_train test_train_conv test_loop test_sampler test_samplers test_sampler_memory test_sampler_ways test_chunks test_in_channels \
                 test_not_finite test_judge test_ref test_conv test_golden_ops test_golden_steps test_kernels_linear test_kernels_norm \
                 test_kernels_sublayer test_kernels_scratch test_adapter_hostile grad_ops grad_seams grad_unet
VALGRIND_TESTS ?= $(filter-out $(addprefix %/,$(VALGRIND_SLOW)),$(TESTS))
valgrind: $(OBJ)/sdlora $(VALGRIND_TESTS)
	scripts/valgrind.sh $^
tsan:
	scripts/tsan.sh $(BUILD)

check:
	scripts/check.sh
mutants:
	scripts/mutants.sh
results: sdlora
	scripts/results.sh
figures: sdlora
	scripts/figures.sh
fuzz:
	scripts/fuzz.sh
format:
	clang-format -i $$(git ls-files '*.c' '*.h')
install: sdlora
	install -d $(DESTDIR)$(bindir)
	install -m 755 sdlora $(DESTDIR)$(bindir)/sdlora
uninstall:
	rm -f $(DESTDIR)$(bindir)/sdlora
clean:
	rm -rf $(BUILD) sdlora

FORCE:
.PHONY: all test valgrind tsan check mutants figures results fuzz format install uninstall clean FORCE
.DELETE_ON_ERROR:
.SECONDARY:
-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
