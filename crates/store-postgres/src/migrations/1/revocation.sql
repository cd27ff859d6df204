-- The stamps that order not-befores and creations.

create function {s}.rg_stamp(
    p_known bytea, p_creation boolean, p_after bigint, p_leeway bigint, out o_status text, out o_stamp bigint
) language plpgsql as $$
declare
    stamped bigint;
    right_now bigint;
begin
    perform {s}.rg_begin(p_known, true);
    select last into strict stamped from {s}.stamp for update;
    right_now := {s}.rg_now();
    o_stamp := greatest(right_now, stamped);
    if not p_creation then
        -- Everything that is created later gets a later millisecond.
        update {s}.stamp set last = o_stamp + 1;
    else
        if p_after is not null then
            o_stamp := greatest(o_stamp, {s}.rg_plus(p_after, 1));
        end if;
        if o_stamp > right_now + p_leeway then
            o_status := 'ahead';
            return;
        end if;
        update {s}.stamp set last = o_stamp;
    end if;
    o_status := 'stamp';
end
$$;

-- Returns the stamp of a change that every node detects by itself. The first node gets a stamp as for a not-before.
-- Nodes that detect the same change later get the same stamp.
create function {s}.rg_change(
    p_known bytea, p_name bytea, p_state bytea, p_kept bigint, out o_status text, out o_stamp bigint
) language plpgsql as $$
declare
    known {s}.change%rowtype;
    right_now bigint;
begin
    perform {s}.rg_begin(p_known, true);
    o_status := 'stamp';
    -- One node at a time can do this.
    select last into strict o_stamp from {s}.stamp for update;
    right_now := {s}.rg_now();
    select * into known from {s}.change where name = p_name;
    if found and known.state = p_state and known.until > right_now then
        o_stamp := known.stamp;
        perform {s}.rg_touch();
        return;
    end if;
    o_stamp := greatest(right_now, o_stamp);
    update {s}.stamp set last = o_stamp + 1;
    insert into {s}.change as c (name, state, stamp, until)
        values (p_name, p_state, o_stamp, {s}.rg_plus(right_now, p_kept))
        on conflict (name) do update set state = excluded.state, stamp = excluded.stamp, until = excluded.until;
end
$$;
