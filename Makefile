# Joins two EKS clusters into one service mesh: `make all CLUSTER1=… CLUSTER2=…`, or `make demo` without any AWS account.
#
# Every step is one tool that reads JSON and writes JSON; its output is the target. So -j runs both clusters side by
# side, a run that failed resumes where it stopped, -B asserts everything again, and -n shows the commands.

MAKEFLAGS += --warn-undefined-variables --no-builtin-rules
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
# Without this, make deletes the JSON files between the first and the last.
.SECONDARY:

# --- what a user sets
V ?= # anything: also show the commands
CLUSTER1 ?= # the cluster of the front end, where users arrive
CLUSTER2 ?= # the cluster of the back end
REGION ?= # default: AWS_REGION or the profile
PROJECT ?= k8multi# prefix of the ECR repositories
COUNT ?= 200# requests of the probe
PROPERTY ?= spoiled_# what `make fuzz` tries: every test whose name has this
SECONDS ?= 50# how long it tries each
INPUT ?= # or a file that it left: once more, with that alone
CHART ?= charts/appmesh-controller# or https://aws.github.io/eks-charts, for whoever still has the App Mesh API
SCHEME ?= internet-facing# or internal: the front end's load balancer
NAMESPACE_TYPE ?= private-dns# or http, for clusters in two VPCs
IDENTITY ?= irsa# or pod-identity, for accounts that may not make an OIDC provider: how pods get their role
BUILD ?= build
ifeq ($(origin BIN),undefined)
BIN := target/$(shell rustc -vV | sed -n 's/^host: //p')/release
endif
STATIC ?= $(BIN)# the images' programs, for Linux; a Mac has them built elsewhere

# Amazon's chart brings its own images and needs the App Mesh API; ours is built here and needs Cloud Map only.
ifeq ($(CHART),charts/appmesh-controller)
MESH_IMAGES := appmesh-controller capture
MESH_FLAGS := --image image=appmesh-controller --image init.image=capture
POLICIES ?= # managed policies in place of policies/controller.json, which irsa-role knows
else
MESH_IMAGES :=
MESH_FLAGS := --chart-name appmesh-controller
POLICIES ?= AWSCloudMapFullAccess AWSAppMeshFullAccess
endif

# What every other step begins with: the first document of a cluster, which has its facts.
ifeq ($(strip $(IDENTITY)),pod-identity)
FACTS := role
else
FACTS := oidc
endif

ifeq ($(strip $(V)),)
.SILENT:
endif

TOOLS := appmesh-install cloudmap-ns color-probe ecr-push irsa-role manifest-apply mesh-check oidc-assoc plan-total pod-identity sg-open
IMAGES := appmesh-controller capture colorapp feapp

ONE := $(BUILD)/$(CLUSTER1)
TWO := $(BUILD)/$(CLUSTER2)
region := $(if $(strip $(REGION)),--region $(strip $(REGION)))
scheme = --set LOAD_BALANCER_SCHEME=$(SCHEME) --set LOAD_BALANCER_IS_INTERNAL=$(if $(filter internal,$(SCHEME)),true,false)
# When this make began, and how to name this pair again.
STARTED := $(shell date +%s)
pair = CLUSTER1=$(strip $(CLUSTER1)) CLUSTER2=$(strip $(CLUSTER2))$(if $(region), REGION=$(strip $(REGION)))$(if $(filter role,$(FACTS)), IDENTITY=pod-identity)
# `make plan` runs the same rules with this flag, and into a folder of its own; with --quiet, only errors are reported.
PLANNING :=
plan := $(if $(PLANNING),--plan $(PLANNING:yes=))
# What only looks may do so side by side, without being asked.
look = $(MAKE) --no-print-directory $(if $(findstring --jobserver,$(MAKEFLAGS)),,-j8)
# Keeps the last good answer when a step fails.
to = > $@.tmp && mv $@.tmp $@

.PHONY: all
all: clusters-named ## Join CLUSTER1 and CLUSTER2, and see red and blue
	$(MAKE) --no-print-directory check
	$(MAKE) --no-print-directory probe
	echo
	echo "$(strip $(CLUSTER1)) and $(strip $(CLUSTER2)) are one mesh, after $$(( $$(date +%s) - $(STARTED) )) s"
	echo "  see it        kubectl get meshes,virtualnodes,virtualrouters,virtualservices -A, in both"
	echo "  all of it     make plan-destroy $(pair)"
	echo "  what drifted  make plan $(pair)"
	echo "  undo it       make destroy $(pair)"

.PHONY: check
check: clusters-named $(IMAGES:%=$(STATIC)/%) | $(BIN)/mesh-check ## Tell all that keeps CLUSTER1 and CLUSTER2 apart, at once; change nothing
	mkdir -p $(ONE)
	$(BIN)/mesh-check -n --cluster $(CLUSTER1) --and-cluster $(CLUSTER2) $(region) --namespace-type $(NAMESPACE_TYPE) --helm $(IMAGES:%=--program $(STATIC)/%) > $(ONE)/check.json

.PHONY: clusters-named
clusters-named:
	@: $(if $(and $(strip $(CLUSTER1)),$(strip $(CLUSTER2))),,$(error name both clusters: make all CLUSTER1=… CLUSTER2=…))

# --- each cluster: identity provider, role, images, controller
$(BUILD)/%/oidc.json: | $(BIN)/oidc-assoc
	mkdir -p $(@D)
	$(BIN)/oidc-assoc -n --cluster $* $(region) $(plan) $(to)

ifeq ($(FACTS),oidc)
$(BUILD)/%/role.json: $(BUILD)/%/oidc.json | $(BIN)/irsa-role
	$(BIN)/irsa-role $(POLICIES:%=--policy %) $(plan) < $< $(to)
else
$(BUILD)/%/role.json: | $(BIN)/pod-identity
	mkdir -p $(@D)
	$(BIN)/pod-identity -n --cluster $* $(region) $(POLICIES:%=--policy %) $(plan) $(to)
endif

define push
$(BUILD)/%/image-$(1).json: $(BUILD)/%/$(FACTS).json $(STATIC)/$(1) | $(BIN)/ecr-push
	$(BIN)/ecr-push $(1) --repository $(PROJECT)/$(1) --binary $(STATIC)/$(1) --plain $(plan) < $$< $$(to)
endef
$(foreach image,$(IMAGES),$(eval $(call push,$(image))))

$(BUILD)/%/mesh.json: $(BUILD)/%/role.json $(BUILD)/%/namespace.json $(MESH_IMAGES:%=$(BUILD)/\%/image-%.json) | $(BIN)/appmesh-install
	cat $^ | $(BIN)/appmesh-install --chart $(CHART) $(MESH_FLAGS) $(plan) $(to)

# --- what the clusters share
$(TWO)/namespace.json: $(TWO)/$(FACTS).json $(ONE)/$(FACTS).json | $(BIN)/cloudmap-ns
	$(BIN)/cloudmap-ns --type $(NAMESPACE_TYPE) --from $(ONE)/$(FACTS).json $(plan) < $< $(to)

$(ONE)/namespace.json: $(ONE)/$(FACTS).json $(TWO)/namespace.json | $(BIN)/cloudmap-ns
	$(BIN)/cloudmap-ns --type $(NAMESPACE_TYPE) --from $(TWO)/namespace.json $(plan) < $< $(to)

# Once the applications run: their pods may have security groups of their own.
$(TWO)/ingress.json: $(TWO)/$(FACTS).json $(ONE)/$(FACTS).json | $(if $(PLANNING),,$(ONE)/feapp.json $(TWO)/colorapp.json) $(BIN)/sg-open
	$(BIN)/sg-open --from $(ONE)/$(FACTS).json $(plan) < $< $(to)

# --- the applications: the front end names the back end's VirtualService, so it starts when that one has its ARN
$(TWO)/colorapp-arn.json: $(TWO)/mesh.json $(TWO)/image-colorapp.json $(TWO)/namespace.json manifests/colorapp.yaml | $(BIN)/manifest-apply
	cat $(filter %.json,$^) | $(BIN)/manifest-apply colorapp --file manifests/colorapp.yaml --template --no-wait $(plan) $(to)

$(TWO)/colorapp.json: $(TWO)/colorapp-arn.json | $(BIN)/manifest-apply
	$(BIN)/manifest-apply colorapp < $< $(to)

$(ONE)/feapp.json: $(ONE)/mesh.json $(ONE)/image-feapp.json manifests/feapp.yaml $(TWO)/colorapp-arn.json | $(BIN)/manifest-apply
	cat $(filter-out $(TWO)/%,$(filter %.json,$^)) | $(BIN)/manifest-apply feapp --file manifests/feapp.yaml --template $(scheme) --from $(TWO)/colorapp-arn.json $(plan) $(to)

.PHONY: probe
probe: $(ONE)/feapp.json $(TWO)/colorapp.json $(TWO)/ingress.json | $(BIN)/color-probe ## Ask the front end COUNT times: red and blue must be even
	$(BIN)/color-probe --count $(COUNT) --expect red=1,blue=1 < $< > $(ONE)/probe.json

# --- taking it down: from the names alone, so it also works when a run died before it wrote its file
GONE := $(BUILD)/gone
# The documents say what has gone before, or in a plan would have.
gone = --delete $(plan) > $@.tmp && mv $@.tmp $@

.PHONY: destroy
destroy: clusters-named | $(BIN)/plan-total ## Remove everything again, but nothing that others use
	rm -rf $(GONE) $(BUILD)/plan
	+$(look) gone-mesh PLANNING=--quiet BUILD=$(BUILD)/plan
	$(MAKE) --no-print-directory gone
	rm -rf $(ONE) $(TWO) $(GONE) $(BUILD)/plan
	+$(look) gone PLANNING=--quiet BUILD=$(BUILD)/plan
	$(BIN)/plan-total --left $(BUILD)/plan/gone/*.json

.PHONY: plan-destroy
plan-destroy: clusters-named | $(BIN)/plan-total ## Tell what `make destroy` would remove, change nothing
	rm -rf $(BUILD)/plan
	+$(look) gone PLANNING=yes BUILD=$(BUILD)/plan
	$(BIN)/plan-total $(BUILD)/plan/gone/*.json

space := $(subst ,, )
PAIR := $(sort $(CLUSTER1) $(CLUSTER2))

# First of all in a plan: a controller that others still need stops it.
.PHONY: gone gone-mesh
gone-mesh: $(PAIR:%=$(GONE)/%.mesh.json)
gone: $(PAIR:%=$(GONE)/%.$(FACTS).json) $(GONE)/namespace.json $(GONE)/ingress.json $(IMAGES:%=$(GONE)/image-%.json)

$(GONE):
	mkdir -p $@
$(GONE)/feapp.json: | $(BIN)/manifest-apply $(GONE)
	$(BIN)/manifest-apply feapp -n --cluster $(CLUSTER1) $(region) --file manifests/feapp.yaml --template $(gone)
# In one cluster the mesh is both applications', and goes with the second.
$(GONE)/colorapp.json: $(GONE)/feapp.json | $(BIN)/manifest-apply
	$(BIN)/manifest-apply colorapp $(if $(filter $(CLUSTER1),$(CLUSTER2)),< $<,-n --cluster $(CLUSTER2) $(region)) --file manifests/colorapp.yaml --template $(gone)
$(GONE)/namespace.json: $(GONE)/colorapp.json | $(BIN)/cloudmap-ns
	$(BIN)/cloudmap-ns --type $(NAMESPACE_TYPE) < $< $(gone)
$(GONE)/ingress.json: $(GONE)/colorapp.json | $(BIN)/sg-open
	$(BIN)/sg-open --from-cluster $(CLUSTER1) < $< $(gone)
$(GONE)/%.mesh.json: $(GONE)/colorapp.json | $(BIN)/appmesh-install
	$(BIN)/appmesh-install --chart $(CHART) < $(if $(filter $*,$(CLUSTER2)),$<,$(GONE)/feapp.json) $(gone)
ROLES := $(if $(filter role,$(FACTS)),pod-identity,irsa-role)
$(GONE)/%.role.json: $(GONE)/%.mesh.json | $(BIN)/$(ROLES)
	$(BIN)/$(ROLES) < $< $(gone)
$(GONE)/%.oidc.json: $(GONE)/%.role.json | $(BIN)/oidc-assoc
	$(BIN)/oidc-assoc < $< $(gone)
define gone-image
$(GONE)/image-$(1).json: $(PAIR:%=$(GONE)/%.mesh.json) | $(BIN)/ecr-push
	$(BIN)/ecr-push $(1) -n $(region) $(if $(PAIR),--cluster $(subst $(space), --and-cluster ,$(PAIR))) --repository $(PROJECT)/$(1) --force $$(gone)
endef
$(foreach image,$(IMAGES),$(eval $(call gone-image,$(image))))

# --- what would change: the rules above, which then print what they would do
.PHONY: plan
plan: clusters-named | $(BIN)/plan-total ## Tell what `make all` would add, change and remove; change nothing
	rm -rf $(BUILD)/plan
	+$(look) planned PLANNING=yes BUILD=$(BUILD)/plan
	$(BIN)/plan-total $(sort $(CLUSTER1:%=$(BUILD)/plan/%/*.json) $(CLUSTER2:%=$(BUILD)/plan/%/*.json))

.PHONY: planned
planned: $(ONE)/feapp.json $(TWO)/colorapp-arn.json $(TWO)/namespace.json $(TWO)/ingress.json

# --- this machine only
LOCALCLOUD = $(BIN)/localcloud --state $(BUILD)/localcloud

.PHONY: demo
demo: build ## Run the whole flow in two real clusters on this machine, no AWS account
	rm -rf $(BUILD)/demo
	$(LOCALCLOUD) up -- make --no-print-directory -j8 all CLUSTER1=c1 CLUSTER2=c2 REGION=us-west-2 BUILD=$(BUILD)/demo

.PHONY: test
test: lint ## Run the tests, the whole flow in the local cloud included
	cargo build --release --workspace --all-targets
	bin=$$($(BIN)/localcloud parts); ENVOY=$$bin/envoy HELM=$$bin/helm KUBECTL=$$bin/kubectl cargo test --release --workspace

.PHONY: test-faults
test-faults: build ## Try every fault: what comes of it is in docs/faults.md
	cargo test --release --workspace --test cloud faults_ -- --ignored --test-threads 1

# What libFuzzer is guided by: counters at every edge, and what is compared there. All of it is stable, but it concerns
# every crate, so this has a target folder of its own.
FUZZ_FLAGS := --cfg fuzzing --cfg fuzzing_libfuzzer -A unused_imports -C debug-assertions -C passes=sancov-module \
	$(addprefix -C llvm-args=-sanitizer-coverage-,level=4 inline-8bit-counters pc-table trace-compares)

# The crates that have a property, as options of cargo: what links no libFuzzer cannot be built with these flags.
FUZZED = $(shell grep -rl --include='*.rs' '::property! {' bins common mesh pod-role | sed 's|src/.*|Cargo.toml|' | sort -u | \
	xargs sed -n 's/^name = "\(.*\)"/-p \1/p')

.PHONY: fuzz
fuzz: ## Let libFuzzer look for input that breaks a property of the tests, SECONDS for each (first builds for minutes)
	RUSTFLAGS="$(FUZZ_FLAGS)" FUZZ_SECONDS=$(SECONDS) FUZZ_INPUT=$(INPUT) \
		cargo test --release $(FUZZED) --lib --bins --no-fail-fast --target-dir target/fuzz $(PROPERTY)

# The headers of the tools are help texts, read in a terminal: a URL or a <name> in them is no mark-up.
RUSTDOC_FLAGS := -D warnings -A rustdoc::bare_urls -A rustdoc::invalid_html_tags

.PHONY: bench-scale
bench-scale: build ## Measure the controller with up to 1,000 VirtualNodes and 500 sidecars (half an hour, 2 GB)
	python3 bench/scale.py
	python3 bench/tables.py

.PHONY: lint
lint: ## Check formatting, lints, documentation
	python3 bench/tables.py --check
	cargo fmt --all --check
	cargo clippy --release --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="$(RUSTDOC_FLAGS)" cargo doc --release --workspace --no-deps

.PHONY: deny
deny: ## Check the dependencies: licences, sources, unwanted crates (cargo-deny)
	cargo deny --offline check --hide-inclusion-graph bans licenses sources

# --- building
.PHONY: build
build: ## Build the tools and the images' programs
	cargo build --release --workspace

# A program that is there is used as it is, even with -B: `make build` brings it up to date.
missing := $(sort $(filter-out $(wildcard $(BIN)/* $(STATIC)/*),$(TOOLS:%=$(BIN)/%) $(IMAGES:%=$(STATIC)/%)))
ifneq ($(missing),)
$(missing) &:
	$(MAKE) --no-print-directory build
endif

.PHONY: clean
clean: ## Remove what was built here (not what was made in AWS: see destroy)
	rm -rf $(BUILD) target

.PHONY: help
help: ## Show this
	@sed -nE 's/^([a-z-]+):.*## (.*)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 12
